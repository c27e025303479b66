# Counting working days; days are plain numbers and day 0 is a Monday.

WEEK = 7
WORKING = 5


def is_weekend(day):
    if day < 0:
        raise ValueError("days start at 0")
    return day % WEEK >= WORKING


def is_workday(day, holidays=()):
    if is_weekend(day):
        return False
    return day not in holidays


def next_workday(day, holidays=()):
    day += 1
    while not is_workday(day, holidays):
        day += 1
    return day


def previous_workday(day, holidays=()):
    day -= 1
    while not is_workday(day, holidays):
        day -= 1
    return day


def add_workdays(day, count, holidays=()):
    while count > 0:
        day = next_workday(day, holidays)
        count -= 1
    while count < 0:
        day = previous_workday(day, holidays)
        count += 1
    return day


def count_workdays(start, end, holidays=()):
    if end < start:
        return -count_workdays(end, start, holidays)
    total = 0
    for day in range(start, end):
        if is_workday(day, holidays):
            total += 1
    return total


def roll(day, holidays=(), backward=False):
    if is_workday(day, holidays):
        return day
    if backward:
        return previous_workday(day, holidays)
    return next_workday(day, holidays)


def due_day(ordered, lead, holidays=(), cutoff_passed=False):
    start = roll(ordered, holidays)
    if cutoff_passed and start == ordered:
        start = next_workday(start, holidays)
    return add_workdays(start, lead, holidays)


def overdue_days(due, today, holidays=()):
    if today <= due:
        return 0
    return count_workdays(due, today, holidays)
