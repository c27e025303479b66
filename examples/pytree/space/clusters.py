# Grouping points that lie close together.


def squared_distance(left, right):
    total = 0
    for a, b in zip(left, right):
        total += (a - b) ** 2
    return total


def centroid(points):
    if not points:
        return None
    size = len(points[0])
    sums = [0] * size
    for point in points:
        for axis in range(size):
            sums[axis] += point[axis]
    return tuple(value / len(points) for value in sums)


def nearest_center(point, centers):
    best = None
    for index, center in enumerate(centers):
        gap = squared_distance(point, center)
        if best is None or gap < squared_distance(point, centers[best]):
            best = index
    return best


def assign(points, centers):
    groups = [[] for _ in centers]
    for point in points:
        index = nearest_center(point, centers)
        groups[index].append(point)
    return groups


def move_centers(points, centers):
    moved = []
    for center, group in zip(centers, assign(points, centers)):
        middle = centroid(group)
        moved.append(center if middle is None else middle)
    return moved


def k_means(points, centers, rounds=20):
    for _ in range(rounds):
        moved = move_centers(points, centers)
        if moved == centers:
            break
        centers = moved
    return centers


def spread(points, centers):
    total = 0
    for point in points:
        index = nearest_center(point, centers)
        total += squared_distance(point, centers[index])
    return total


def far_apart_centers(points, count):
    centers = [points[0]]
    while len(centers) < count:
        farthest = max(points, key=lambda point: gap_to(point, centers))
        if gap_to(farthest, centers) == 0:
            break
        centers.append(farthest)
    return centers


def gap_to(point, centers):
    if not centers:
        return None
    index = nearest_center(point, centers)
    return squared_distance(point, centers[index])


def within_radius(points, center, radius, inclusive=True):
    found = []
    for point in points:
        gap = squared_distance(point, center)
        if gap < radius * radius or (inclusive and gap == radius * radius):
            found.append(point)
    return found
