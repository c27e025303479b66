# Polynomials as lists of coefficients, the constant first.


def strip(coefficients):
    result = list(coefficients)
    while result and result[-1] == 0:
        result.pop()
    return result


def degree(coefficients):
    size = len(strip(coefficients))
    if size == 0:
        return None
    return size - 1


def evaluate(coefficients, point):
    total = 0
    for value in reversed(coefficients):
        total = total * point + value
    return total


def add_polynomials(left, right):
    size = max(len(left), len(right))
    result = [0] * size
    for index in range(size):
        if index < len(left):
            result[index] += left[index]
        if index < len(right):
            result[index] += right[index]
    return strip(result)


def multiply_polynomials(left, right):
    if not left or not right:
        return []
    result = [0] * (len(left) + len(right) - 1)
    for i, a in enumerate(left):
        for j, b in enumerate(right):
            result[i + j] += a * b
    return strip(result)


def derivative(coefficients, times=1):
    result = list(coefficients)
    while times > 0:
        result = [index * value for index, value in enumerate(result)][1:]
        times -= 1
    return result


def find_root(coefficients, low, high, tolerance=1e-9):
    start = evaluate(coefficients, low)
    if start * evaluate(coefficients, high) > 0:
        return None
    while high - low > tolerance:
        middle = (low + high) / 2
        if start * evaluate(coefficients, middle) > 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def term_text(value, power):
    if power == 0:
        return str(value)
    name = "x" if power == 1 else "x^%d" % power
    if value == 1:
        return name
    return "%s%s" % (value, name)


def polynomial_text(coefficients):
    terms = []
    for power, value in enumerate(coefficients):
        if value != 0:
            terms.insert(0, term_text(value, power))
    if not terms:
        return "0"
    return " + ".join(terms)
