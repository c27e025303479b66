# Months and quarters, written as "2024-03" and "2024-Q1".


def parse_month(text):
    year, mark, month = text.partition("-")
    if not mark or not month.isdigit():
        raise ValueError("expected YYYY-MM")
    number = int(month)
    if number < 1 or number > 12:
        raise ValueError("no such month: " + month)
    return int(year), number


def format_month(year, month):
    while month > 12:
        year += 1
        month -= 12
    return "%04d-%02d" % (year, month)


def shift_month(text, count):
    year, month = parse_month(text)
    index = year * 12 + month - 1 + count
    return format_month(index // 12, index % 12 + 1)


def month_range(first, last, inclusive=True):
    months = []
    current = first
    while current < last:
        months.append(current)
        current = shift_month(current, 1)
    if inclusive and current == last:
        months.append(last)
    return months


def quarter_of(text, fiscal_start=1):
    year, month = parse_month(text)
    offset = (month - fiscal_start) % 12
    if month < fiscal_start:
        year -= 1
    return "%04d-Q%d" % (year, offset // 3 + 1)


def months_in_quarter(quarter):
    year, mark, number = quarter.partition("-Q")
    if not mark:
        raise ValueError("expected YYYY-QN")
    first = (int(number) - 1) * 3 + 1
    return [format_month(int(year), first + step) for step in range(3)]


def sum_by_quarter(amounts):
    totals = {}
    for month, amount in amounts.items():
        quarter = quarter_of(month)
        if quarter not in totals:
            totals[quarter] = 0
        totals[quarter] += amount
    return totals


def fill_gaps(amounts, default=0):
    if not amounts:
        return {}
    filled = {}
    for month in month_range(min(amounts), max(amounts)):
        filled[month] = amounts.get(month, default)
    return filled
