# Finding substrings and measuring how far apart two strings are.


def find_from(haystack, needle, start):
    last = len(haystack) - len(needle)
    while start <= last:
        if haystack[start:start + len(needle)] == needle:
            return start
        start += 1
    return -1


def count_matches(haystack, needle, overlapping=False):
    if not needle:
        return 0
    count = 0
    step = 1 if overlapping else len(needle)
    position = find_from(haystack, needle, 0)
    while position != -1:
        count += 1
        position = find_from(haystack, needle, position + step)
    return count


def common_prefix(left, right):
    limit = min(len(left), len(right))
    size = 0
    while size < limit and left[size] == right[size]:
        size += 1
    return left[:size]


def common_suffix(left, right):
    shared = common_prefix(left[::-1], right[::-1])
    if not shared:
        return ""
    return shared[::-1]


def next_row(row, char, other):
    result = [row[0] + 1]
    for index, candidate in enumerate(other):
        cost = 0 if candidate == char else 1
        best = min(row[index] + cost, row[index + 1] + 1)
        result.append(min(best, result[index] + 1))
    return result


def edit_distance(left, right):
    if left == right:
        return 0
    row = list(range(len(right) + 1))
    for char in left:
        row = next_row(row, char, right)
    return row[-1]


def closest(word, candidates, limit=3):
    best = None
    best_distance = limit + 1
    for candidate in candidates:
        distance = edit_distance(word, candidate)
        if distance < best_distance:
            best = candidate
            best_distance = distance
    return best


def glob_match(pattern, name):
    if not pattern:
        return not name
    if pattern[0] == "*":
        if glob_match(pattern[1:], name):
            return True
        return bool(name) and glob_match(pattern, name[1:])
    if not name or pattern[0] not in ("?", name[0]):
        return False
    return glob_match(pattern[1:], name[1:])
