# Days of the proleptic Gregorian calendar as (year, month, day) tuples.

MONTH_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def is_leap(year):
    if year % 400 == 0:
        return True
    if year % 100 == 0:
        return False
    return year % 4 == 0


def days_in_month(year, month):
    if month < 1 or month > 12:
        raise ValueError("month must be between 1 and 12")
    if month == 2 and is_leap(year):
        return 29
    return MONTH_DAYS[month - 1]


def is_valid(year, month, day):
    if year < 1 or not 1 <= month <= 12:
        return False
    return 1 <= day <= days_in_month(year, month)


def day_of_year(date):
    year, month, day = date
    total = day
    for earlier in range(1, month):
        total += days_in_month(year, earlier)
    return total


def to_ordinal(date):
    years = date[0] - 1
    days = years * 365
    leaps = years // 4 - years // 100 + years // 400
    return days + leaps + day_of_year(date)


def next_day(date):
    year, month, day = date
    if day < days_in_month(year, month):
        return (year, month, day + 1)
    if month < 12:
        return (year, month + 1, 1)
    return (year + 1, 1, 1)


def add_months(date, count):
    year, month, day = date
    index = year * 12 + (month - 1) + count
    year, month = index // 12, index % 12 + 1
    last = days_in_month(year, month)
    return (year, month, min(day, last))


def weekday(date, name=False):
    index = (to_ordinal(date) + 6) % 7
    if name:
        return WEEKDAYS[index]
    return index


def days_between(start, end):
    if start == end:
        return 0
    return to_ordinal(end) - to_ordinal(start)
