# Straight lines between two points.


def distance(first, second):
    dx = second[0] - first[0]
    dy = second[1] - first[1]
    return (dx * dx + dy * dy) ** 0.5


def point_along(first, second, share):
    if share <= 0:
        return first
    if share >= 1:
        return second
    x = first[0] + (second[0] - first[0]) * share
    y = first[1] + (second[1] - first[1]) * share
    return (x, y)


def nearest_on(first, second, point):
    dx, dy = second[0] - first[0], second[1] - first[1]
    length = dx * dx + dy * dy
    if length == 0:
        return first
    along = (point[0] - first[0]) * dx + (point[1] - first[1]) * dy
    return point_along(first, second, along / length)


def side_of(first, second, point):
    cross = (second[0] - first[0]) * (point[1] - first[1])
    cross -= (second[1] - first[1]) * (point[0] - first[0])
    if cross == 0:
        return 0
    return 1 if cross > 0 else -1


def crosses(first, second, third, fourth):
    left = side_of(first, second, third) * side_of(first, second, fourth)
    right = side_of(third, fourth, first) * side_of(third, fourth, second)
    return left < 0 and right < 0


def polyline_length(points):
    total = 0.0
    for first, second in zip(points, points[1:]):
        total += distance(first, second)
    return total


def farthest_index(points):
    best = None
    best_gap = -1.0
    for index in range(1, len(points) - 1):
        near = nearest_on(points[0], points[-1], points[index])
        gap = distance(near, points[index])
        if gap > best_gap:
            best, best_gap = index, gap
    return best, best_gap


def simplify(points, tolerance):
    index, gap = farthest_index(points)
    if index is None:
        return list(points)
    if gap <= tolerance:
        return [points[0], points[-1]]
    before = simplify(points[:index + 1], tolerance)
    after = simplify(points[index:], tolerance)
    return before[:-1] + after


def walk(points, travelled):
    for first, second in zip(points, points[1:]):
        step = distance(first, second)
        if travelled <= step and step > 0:
            return point_along(first, second, travelled / step)
        travelled -= step
    return points[-1]
