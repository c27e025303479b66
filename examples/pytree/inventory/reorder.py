# When to order more goods, and how many.


def average_demand(sales, days=None):
    recent = sales if days is None else sales[-days:]
    if not recent:
        return 0.0
    return sum(recent) / len(recent)


def peak_demand(sales, days):
    peak = 0
    for start in range(len(sales) - days + 1):
        window = sum(sales[start:start + days])
        if window > peak:
            peak = window
    return peak


def safety_stock(sales, lead_days):
    usual = average_demand(sales) * lead_days
    worst = peak_demand(sales, lead_days)
    if worst <= usual:
        return 0
    return int(worst - usual + 0.999)


def reorder_point(sales, lead_days, careful=True):
    point = average_demand(sales) * lead_days
    if careful:
        point += safety_stock(sales, lead_days)
    return int(point)


def round_to_pack(quantity, pack):
    if quantity <= 0:
        return 0
    packs = quantity // pack
    if quantity % pack != 0:
        packs += 1
    return packs * pack


def order_quantity(on_hand, on_order, target, pack=1):
    missing = target - on_hand - on_order
    if missing <= 0:
        return 0
    return round_to_pack(missing, pack)


def days_left(on_hand, sales):
    daily = average_demand(sales)
    if daily == 0:
        return None
    return int(on_hand / daily)


def order_plan(items, lead_days):
    plan = []
    for sku, on_hand, sales, pack in items:
        point = reorder_point(sales, lead_days)
        if on_hand > point:
            continue
        quantity = order_quantity(on_hand, 0, point * 2, pack)
        if quantity > 0:
            plan.append((sku, quantity))
    return plan


def classify(values, first=0.8, second=0.95):
    total = sum(values.values())
    classes = {}
    running = 0
    for sku in sorted(values, key=values.get, reverse=True):
        share = running / total if total else 1
        classes[sku] = "a" if share < first else "b" if share < second else "c"
        running += values[sku]
    return classes
