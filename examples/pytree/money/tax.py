# Income tax in bands and sales tax on invoices; rates are in basis points.

BANDS = ((0, 0), (1000000, 1000), (4000000, 2500), (9000000, 4000))


def band_share(income, lower, upper):
    if income <= lower:
        return 0
    if upper is None or income < upper:
        return income - lower
    return upper - lower


def income_tax(income, bands=BANDS):
    tax = 0
    for index, (lower, rate) in enumerate(bands):
        upper = None
        if index + 1 < len(bands):
            upper = bands[index + 1][0]
        tax += band_share(income, lower, upper) * rate // 10000
    return tax


def marginal_rate(income, bands=BANDS):
    found = 0
    for lower, rate in bands:
        if income > lower:
            found = rate
    return found


def effective_rate(income, bands=BANDS):
    if income <= 0:
        return 0
    tax = income_tax(income, bands)
    return tax * 10000 // income


def add_sales_tax(net, rate, exempt=False):
    if exempt or rate == 0:
        return net
    tax = (net * rate + 5000) // 10000
    return net + tax


def net_from_gross(gross, rate):
    if rate < 0:
        raise ValueError("rate must not be negative")
    scale = 10000 + rate
    return (gross * 10000 + scale // 2) // scale


def invoice_tax(lines, rates, default_rate=0):
    totals = {}
    for category, net in lines:
        rate = rates.get(category, default_rate)
        totals[rate] = totals.get(rate, 0) + net
    tax = 0
    for rate, net in totals.items():
        tax += add_sales_tax(net, rate) - net
    return tax


def taxable_income(gross, deductions, allowance):
    claimed = sum(deductions)
    if claimed < allowance:
        claimed = allowance
    rest = gross - claimed
    return max(rest, 0)


def still_owed(tax, withheld, threshold=0):
    owed = tax - withheld
    if 0 < owed <= threshold:
        return 0
    return owed
