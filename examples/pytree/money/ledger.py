# A double-entry ledger: every entry moves cents from one account to another.


class Ledger:
    def __init__(self):
        self.entries = []
        self.limits = {}
        self.closed = set()

    def set_limit(self, account, lowest):
        if account in self.closed:
            raise ValueError("account is closed: " + account)
        self.limits[account] = lowest

    def balance(self, account):
        total = 0
        for source, target, cents, _ in self.entries:
            if source == account:
                total -= cents
            if target == account:
                total += cents
        return total

    def can_pay(self, account, cents):
        if account in self.closed:
            return False
        lowest = self.limits.get(account)
        if lowest is None:
            return True
        return self.balance(account) - cents >= lowest

    def transfer(self, source, target, cents, note=""):
        if cents <= 0:
            raise ValueError("amount must be positive")
        if source == target or target in self.closed:
            return False
        if not self.can_pay(source, cents):
            return False
        self.entries.append((source, target, cents, note))
        return True

    def reverse(self, index):
        if index < 0 or index >= len(self.entries):
            raise IndexError("no such entry")
        source, target, cents, note = self.entries[index]
        return self.transfer(target, source, cents, "reversal: " + note)

    def statement(self, account):
        lines = []
        running = 0
        for source, target, cents, note in self.entries:
            if account not in (source, target):
                continue
            change = cents if target == account else -cents
            running += change
            lines.append((note, change, running))
        return lines

    def close(self, account, into=None):
        rest = self.balance(account)
        if rest < 0 or (rest > 0 and into is None):
            return False
        if rest > 0 and not self.transfer(account, into, rest, "closing"):
            return False
        self.closed.add(account)
        return True

    def accounts(self, include_closed=False):
        names = set()
        for source, target, _, _ in self.entries:
            names.update((source, target))
        if not include_closed:
            names -= self.closed
        return sorted(names)
