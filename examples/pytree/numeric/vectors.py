# Vectors as lists of numbers.


def check_same(left, right):
    if len(left) != len(right):
        message = "lengths differ: %d and %d"
        raise ValueError(message % (len(left), len(right)))


def dot(left, right):
    check_same(left, right)
    total = 0
    for a, b in zip(left, right):
        total += a * b
    return total


def add_scaled(left, right, factor=1):
    check_same(left, right)
    result = []
    for a, b in zip(left, right):
        result.append(a + factor * b)
    return result


def norm(vector, order=2):
    if order == 1:
        return sum(abs(value) for value in vector)
    if order == 2:
        return dot(vector, vector) ** 0.5
    return max((abs(value) for value in vector), default=0)


def normalize(vector):
    length = norm(vector)
    if length == 0:
        return list(vector)
    return [value / length for value in vector]


def cosine(left, right):
    lengths = norm(left) * norm(right)
    if lengths == 0:
        return 0.0
    return dot(left, right) / lengths


def project(vector, onto):
    scale = dot(onto, onto)
    if scale == 0:
        return [0] * len(vector)
    factor = dot(vector, onto) / scale
    return [factor * value for value in onto]


def argmax(vector):
    if not vector:
        return None
    best = 0
    for index, value in enumerate(vector):
        if value > vector[best]:
            best = index
    return best


def differences(vector, step=1):
    result = []
    for index in range(step, len(vector)):
        result.append(vector[index] - vector[index - step])
    return result


def almost_equal(left, right, tolerance=1e-9):
    if len(left) != len(right):
        return False
    gap = add_scaled(left, right, -1)
    return norm(gap, 0) <= tolerance
