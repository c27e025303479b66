# Amounts of money as whole cents, never as floats.


def parse_amount(text):
    sign = -1 if text.startswith("-") else 1
    whole, mark, fraction = text.lstrip("+-").replace(",", "").partition(".")
    if not whole.isdigit() or (mark and not fraction.isdigit()):
        raise ValueError("not an amount: " + text)
    if len(fraction) > 2:
        raise ValueError("at most two decimals")
    cents = int(fraction.ljust(2, "0"))
    return sign * (int(whole) * 100 + cents)


def group_digits(digits, separator=","):
    groups = []
    while len(digits) > 3:
        groups.insert(0, digits[-3:])
        digits = digits[:-3]
    groups.insert(0, digits)
    return separator.join(groups)


def format_amount(cents, symbol=""):
    whole, rest = divmod(abs(cents), 100)
    text = "%s%s.%02d" % (symbol, group_digits(str(whole)), rest)
    if cents < 0:
        return "-" + text
    return text


def divide_rounded(amount, divisor):
    if divisor <= 0:
        raise ValueError("divisor must be positive")
    quotient, rest = divmod(amount, divisor)
    if rest * 2 > divisor:
        return quotient + 1
    if rest * 2 == divisor and quotient % 2 == 1:
        return quotient + 1
    return quotient


def percent_of(cents, basis_points):
    if basis_points == 0:
        return 0
    return divide_rounded(cents * basis_points, 10000)


def convert(cents, rates, currency, target):
    if currency == target:
        return cents
    rate = rates.get((currency, target))
    if rate is None:
        raise KeyError("no rate from %s to %s" % (currency, target))
    return divide_rounded(cents * rate, 1000000)


def clamp_amount(cents, lowest=None, highest=None):
    if lowest is not None and cents < lowest:
        return lowest
    if highest is not None and cents > highest:
        return highest
    return cents


def round_cash(cents, step=5):
    rest = cents % step
    if rest * 2 < step:
        return cents - rest
    return cents - rest + step
