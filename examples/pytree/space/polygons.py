# Polygons as lists of (x, y) corners.


def edges_of(corners):
    edges = []
    for index, corner in enumerate(corners):
        following = corners[(index + 1) % len(corners)]
        edges.append((corner, following))
    return edges


def signed_area(corners):
    total = 0
    for (x1, y1), (x2, y2) in edges_of(corners):
        total += x1 * y2 - x2 * y1
    return total / 2


def perimeter(corners, closed=True):
    edges = edges_of(corners)
    if not closed:
        edges = edges[:-1]
    total = 0.0
    for (x1, y1), (x2, y2) in edges:
        total += ((x2 - x1) ** 2 + (y2 - y1) ** 2) ** 0.5
    return total


def turn(origin, first, second):
    ax, ay = first[0] - origin[0], first[1] - origin[1]
    bx, by = second[0] - origin[0], second[1] - origin[1]
    return ax * by - ay * bx


def is_convex(corners):
    sign = 0
    for index in range(len(corners)):
        bend = turn(corners[index - 2], corners[index - 1], corners[index])
        if bend == 0:
            continue
        if sign != 0 and (bend > 0) != (sign > 0):
            return False
        sign = bend
    return True


def is_inside(corners, x, y):
    inside = False
    for (x1, y1), (x2, y2) in edges_of(corners):
        if (y1 > y) == (y2 > y):
            continue
        crossing = x1 + (y - y1) * (x2 - x1) / (y2 - y1)
        if x < crossing:
            inside = not inside
    return inside


def half_hull(points):
    hull = []
    for point in points:
        while len(hull) >= 2 and turn(hull[-2], hull[-1], point) <= 0:
            hull.pop()
        hull.append(point)
    return hull


def convex_hull(points):
    ordered = sorted(set(points))
    if len(ordered) < 3:
        return ordered
    lower = half_hull(ordered)
    upper = half_hull(ordered[::-1])
    return lower[:-1] + upper[:-1]


def move_polygon(corners, dx, dy=0):
    moved = []
    for x, y in corners:
        moved.append((x + dx, y + dy))
    return moved
