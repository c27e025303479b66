# Small dense matrices as lists of rows.


def zeros(rows, columns):
    if rows < 1 or columns < 1:
        raise ValueError("a matrix has at least one row and column")
    return [[0] * columns for _ in range(rows)]


def identity(size):
    result = zeros(size, size)
    for index in range(size):
        result[index][index] = 1
    return result


def shape(matrix):
    width = len(matrix[0])
    for row in matrix:
        if len(row) != width:
            raise ValueError("rows differ in length")
    return len(matrix), width


def add(left, right, sign=1):
    if shape(left) != shape(right):
        raise ValueError("shapes differ")
    result = zeros(*shape(left))
    for i, row in enumerate(left):
        for j, value in enumerate(row):
            result[i][j] = value + sign * right[i][j]
    return result


def multiply(left, right):
    rows, inner = shape(left)
    height, columns = shape(right)
    if inner != height:
        raise ValueError("inner sizes differ")
    result = zeros(rows, columns)
    for i in range(rows):
        for j in range(columns):
            for k in range(inner):
                result[i][j] += left[i][k] * right[k][j]
    return result


def power(matrix, exponent):
    result = identity(len(matrix))
    base = matrix
    while exponent > 0:
        if exponent % 2 == 1:
            result = multiply(result, base)
        base = multiply(base, base)
        exponent //= 2
    return result


def minor(matrix, row, column):
    rest = []
    for index, values in enumerate(matrix):
        if index != row:
            rest.append(values[:column] + values[column + 1:])
    return rest


def determinant(matrix):
    if len(matrix) == 1:
        return matrix[0][0]
    total = 0
    for column, value in enumerate(matrix[0]):
        sign = 1 if column % 2 == 0 else -1
        if value != 0:
            total += sign * value * determinant(minor(matrix, 0, column))
    return total


def trace(matrix):
    rows, columns = shape(matrix)
    total = 0
    for index in range(min(rows, columns)):
        total += matrix[index][index]
    return total
