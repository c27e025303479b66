# Axis-aligned boxes as (left, top, right, bottom); down is positive.


def make_box(x, y, width, height):
    if width < 0:
        x, width = x + width, -width
    if height < 0:
        y, height = y + height, -height
    return (x, y, x + width, y + height)


def area(box):
    if box is None:
        return 0
    left, top, right, bottom = box
    return (right - left) * (bottom - top)


def contains_point(box, x, y):
    left, top, right, bottom = box
    if x < left or x >= right:
        return False
    return top <= y < bottom


def contains_box(outer, inner):
    if inner[0] < outer[0] or inner[1] < outer[1]:
        return False
    return inner[2] <= outer[2] and inner[3] <= outer[3]


def overlap_of(first, second):
    left = max(first[0], second[0])
    top = max(first[1], second[1])
    right = min(first[2], second[2])
    bottom = min(first[3], second[3])
    if left >= right or top >= bottom:
        return None
    return (left, top, right, bottom)


def around(first, second):
    if first is None:
        return second
    if second is None:
        return first
    low = (min(first[0], second[0]), min(first[1], second[1]))
    return low + (max(first[2], second[2]), max(first[3], second[3]))


def overlap_ratio(first, second):
    shared = area(overlap_of(first, second))
    union = area(first) + area(second) - shared
    if union == 0:
        return 0.0
    return shared / union


def grow(box, margin, within=None):
    left, top, right, bottom = box
    grown = (left - margin, top - margin, right + margin, bottom + margin)
    if grown[0] >= grown[2] or grown[1] >= grown[3]:
        return None
    if within is not None:
        return overlap_of(grown, within)
    return grown


def fit_scale(box, width, height, enlarge=False):
    left, top, right, bottom = box
    scale = min(width / (right - left), height / (bottom - top))
    if scale > 1 and not enlarge:
        return 1
    return scale
