# Price reductions on a basket of (name, unit price, quantity) lines.


def line_total(line):
    _, price, quantity = line
    if quantity < 0:
        raise ValueError("quantity must not be negative")
    return price * quantity


def basket_total(lines):
    total = 0
    for line in lines:
        total += line_total(line)
    return total


def percent_off(cents, percent, minimum=0):
    if cents < minimum:
        return cents
    if not 0 <= percent <= 100:
        raise ValueError("percent must be between 0 and 100")
    reduction = cents * percent // 100
    return cents - reduction


def buy_get_free(line, buy, free):
    _, price, quantity = line
    group = buy + free
    full = quantity // group
    rest = quantity % group
    paid = full * buy + min(rest, buy)
    return price * paid


def tier_percent(quantity, tiers):
    best = 0
    for threshold, percent in tiers:
        if quantity >= threshold and percent > best:
            best = percent
    return best


def apply_tiers(lines, tiers):
    total = 0
    for line in lines:
        percent = tier_percent(line[2], tiers)
        total += percent_off(line_total(line), percent)
    return total


def redeem(voucher, total, today):
    if voucher.get("used") or total < voucher["minimum"]:
        return total
    if today > voucher["expires"]:
        return total
    voucher["used"] = True
    return max(total - voucher["value"], 0)


def cheapest_free(lines, every=3):
    prices = []
    for _, price, quantity in lines:
        prices.extend([price] * quantity)
    prices.sort()
    free = len(prices) // every
    return sum(prices[free:])


def best_offer(total, offers):
    best = total
    chosen = None
    for name, price in offers:
        if price < best:
            best = price
            chosen = name
    return chosen, best
