# Customer orders and the states they pass through.

NEXT = {
    "new": ("paid", "cancelled"),
    "paid": ("packed", "cancelled"),
    "packed": ("shipped",),
    "shipped": ("delivered", "returned"),
}


class Order:
    def __init__(self, number, customer):
        self.number = number
        self.customer = customer
        self.lines = {}
        self.state = "new"
        self.history = []

    def add_line(self, sku, quantity, price):
        if self.state != "new":
            raise ValueError("order can no longer be changed")
        old_quantity, _ = self.lines.get(sku, (0, price))
        self.lines[sku] = (old_quantity + quantity, price)

    def remove_line(self, sku, quantity=None):
        held, price = self.lines.get(sku, (0, 0))
        if quantity is None or quantity >= held:
            self.lines.pop(sku, None)
            return held
        self.lines[sku] = (held - quantity, price)
        return quantity

    def total(self, shipping=0):
        amount = 0
        for quantity, price in self.lines.values():
            amount += quantity * price
        if amount == 0:
            return 0
        return amount + shipping

    def can_move(self, state):
        if not self.lines:
            return False
        return state in NEXT.get(self.state, ())

    def move(self, state, day):
        if not self.can_move(state):
            raise ValueError("cannot go from %s to %s" % (self.state, state))
        self.history.append((day, self.state, state))
        self.state = state

    def is_final(self):
        if self.state == "cancelled":
            return True
        return self.state not in NEXT

    def days_in_state(self, today, placed):
        since = placed
        if self.history:
            since = self.history[-1][0]
        return today - since


def late_orders(orders, today, allowed):
    late = []
    for order, placed in orders:
        if order.is_final():
            continue
        if order.days_in_state(today, placed) > allowed:
            late.append(order.number)
    return late


def spent_by(orders, customer):
    spent = 0
    for order in orders:
        if order.customer == customer and order.state != "cancelled":
            spent += order.total()
    return spent
