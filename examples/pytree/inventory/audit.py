# Comparing what was counted with what the books say.


def differences(expected, counted):
    result = {}
    for sku in sorted(set(expected) | set(counted)):
        gap = counted.get(sku, 0) - expected.get(sku, 0)
        if gap != 0:
            result[sku] = gap
    return result


def shrinkage(gaps, prices):
    lost = 0
    for sku, gap in gaps.items():
        if gap < 0:
            lost += -gap * prices.get(sku, 0)
    return lost


def within_tolerance(expected, counted, percent):
    if expected == counted:
        return True
    if expected == 0:
        return False
    return abs(counted - expected) * 100 <= expected * percent


def needs_recount(expected, counts, percent=2):
    suspects = []
    for sku, numbers in sorted(counts.items()):
        target = expected.get(sku, 0)
        if not all(within_tolerance(target, number, percent) for number in numbers):
            suspects.append(sku)
    return suspects


def agreed_count(numbers):
    votes = {}
    for number in numbers:
        votes[number] = votes.get(number, 0) + 1
    winner = max(votes, key=votes.get, default=None)
    if winner is None or votes[winner] * 2 <= len(numbers):
        return None
    return winner


def replay(movements, opening=0):
    level = opening
    lowest = opening
    for kind, quantity in movements:
        if kind == "in":
            level += quantity
        elif kind == "out":
            level -= quantity
        lowest = min(lowest, level)
    return level, lowest


def misplaced(locations, found):
    moved = []
    for sku, shelf in found:
        home = locations.get(sku)
        if home is not None and home != shelf:
            moved.append((sku, home, shelf))
    return moved


def accuracy(expected, counted):
    if not expected:
        return 1.0
    wrong = 0
    for sku in expected:
        if counted.get(sku, 0) != expected[sku]:
            wrong += 1
    return 1 - wrong / len(expected)
