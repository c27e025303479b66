# How many of each item are on hand, and how many of those are promised.


class Stock:
    def __init__(self):
        self.on_hand = {}
        self.reserved = {}

    def receive(self, sku, quantity):
        if quantity <= 0:
            raise ValueError("quantity must be positive")
        self.on_hand[sku] = self.on_hand.get(sku, 0) + quantity
        return self.on_hand[sku]

    def available(self, sku):
        held = self.on_hand.get(sku, 0)
        promised = self.reserved.get(sku, 0)
        return held - promised

    def reserve(self, sku, quantity, partial=False):
        free = self.available(sku)
        if free < quantity:
            if not partial:
                return 0
            quantity = free
        self.reserved[sku] = self.reserved.get(sku, 0) + quantity
        return quantity

    def release(self, sku, quantity):
        promised = self.reserved.get(sku, 0)
        if quantity > promised:
            quantity = promised
        self.reserved[sku] = promised - quantity
        return quantity

    def ship(self, sku, quantity):
        if self.reserved.get(sku, 0) < quantity:
            raise ValueError("ship only what was reserved")
        self.reserved[sku] -= quantity
        self.on_hand[sku] -= quantity
        if self.on_hand[sku] == 0:
            del self.on_hand[sku]

    def recount(self, sku, counted):
        expected = self.on_hand.get(sku, 0)
        if counted < 0:
            raise ValueError("a count is never negative")
        self.on_hand[sku] = counted
        if self.reserved.get(sku, 0) > counted:
            self.reserved[sku] = counted
        return counted - expected

    def low_items(self, threshold):
        low = []
        for sku in sorted(self.on_hand):
            if self.available(sku) < threshold:
                low.append(sku)
        return low


def merge_stock(left, right):
    merged = Stock()
    for stock in (left, right):
        for sku, quantity in stock.on_hand.items():
            merged.receive(sku, quantity)
        for sku, quantity in stock.reserved.items():
            merged.reserve(sku, quantity)
    return merged
