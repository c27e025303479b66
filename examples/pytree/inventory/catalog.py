# A catalogue of products with categories, tags and prices.


class Catalog:
    def __init__(self):
        self.products = {}
        self.parents = {}

    def add(self, sku, name, price, category=None):
        if sku in self.products:
            raise KeyError("already listed: " + sku)
        self.products[sku] = {
            "name": name,
            "price": price,
            "category": category,
            "tags": set(),
        }

    def set_parent(self, category, parent):
        if category in self.ancestry(parent):
            raise ValueError("categories would form a circle")
        self.parents[category] = parent

    def ancestry(self, category):
        chain = []
        while category is not None:
            chain.append(category)
            category = self.parents.get(category)
        return chain

    def tag(self, sku, tag, remove=False):
        product = self.products[sku]
        if remove:
            product["tags"].discard(tag)
        else:
            product["tags"].add(tag)

    def in_category(self, category, nested=True):
        found = []
        for sku, product in self.products.items():
            own = product["category"]
            if own == category:
                found.append(sku)
            elif nested and category in self.ancestry(own):
                found.append(sku)
        return sorted(found)

    def price_between(self, lowest, highest):
        found = []
        for sku in sorted(self.products):
            price = self.products[sku]["price"]
            if lowest <= price <= highest:
                found.append(sku)
        return found

    def find(self, words, tags=()):
        found = []
        for sku, product in sorted(self.products.items()):
            name = product["name"].lower()
            if not all(word.lower() in name for word in words):
                continue
            if set(tags) <= product["tags"]:
                found.append(sku)
        return found

    def raise_prices(self, percent, category=None):
        changed = 0
        for product in self.products.values():
            if category is not None and product["category"] != category:
                continue
            product["price"] += product["price"] * percent // 100
            changed += 1
        return changed
