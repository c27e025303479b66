# Rectangular grids of characters, addressed as (row, column).

STEPS = ((-1, 0), (0, 1), (1, 0), (0, -1))


def parse_grid(text):
    rows = [list(line) for line in text.split("\n") if line]
    width = len(rows[0]) if rows else 0
    for row in rows:
        if len(row) != width:
            raise ValueError("rows differ in length")
    return rows


def in_grid(grid, row, column):
    if row < 0 or row >= len(grid):
        return False
    return 0 <= column < len(grid[row])


def neighbours(grid, row, column, wall="#"):
    found = []
    for down, across in STEPS:
        cell = (row + down, column + across)
        if in_grid(grid, *cell) and grid[cell[0]][cell[1]] != wall:
            found.append(cell)
    return found


def locate(grid, mark):
    for row, cells in enumerate(grid):
        for column, cell in enumerate(cells):
            if cell == mark:
                return (row, column)
    return None


def flood(grid, start, mark):
    stack = [start]
    painted = 0
    while stack:
        row, column = stack.pop()
        if grid[row][column] == mark:
            continue
        grid[row][column] = mark
        painted += 1
        stack.extend(neighbours(grid, row, column))
    return painted


def steps_between(grid, start, goal):
    distance = {start: 0}
    queue = [start]
    while queue:
        cell = queue.pop(0)
        if cell == goal:
            return distance[cell]
        for other in neighbours(grid, *cell):
            if other not in distance:
                distance[other] = distance[cell] + 1
                queue.append(other)
    return None


def turn_right(grid):
    turned = []
    for column in range(len(grid[0])):
        turned.append([row[column] for row in reversed(grid)])
    return turned


def count_around(grid, row, column, mark):
    total = 0
    for down in (-1, 0, 1):
        for across in (-1, 0, 1):
            if down == 0 and across == 0:
                continue
            if in_grid(grid, row + down, column + across):
                total += grid[row + down][column + across] == mark
    return total
