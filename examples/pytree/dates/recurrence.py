# Repeating events on numbered days: every N days, weekly, with exceptions.


class Recurrence:
    def __init__(self, start, every, until=None):
        if every < 1:
            raise ValueError("every must be at least 1")
        self.start = start
        self.every = every
        self.until = until
        self.skipped = set()

    def skip(self, day):
        if not self.matches(day):
            return False
        self.skipped.add(day)
        return True

    def matches(self, day):
        if day < self.start:
            return False
        if self.until is not None and day > self.until:
            return False
        return (day - self.start) % self.every == 0

    def happens_on(self, day):
        if day in self.skipped:
            return False
        return self.matches(day)

    def next_after(self, day):
        if day < self.start:
            candidate = self.start
        else:
            steps = (day - self.start) // self.every + 1
            candidate = self.start + steps * self.every
        while candidate in self.skipped:
            candidate += self.every
        if self.until is not None and candidate > self.until:
            return None
        return candidate

    def days_within(self, first, last):
        days = []
        day = self.next_after(first - 1)
        while day is not None and day <= last:
            days.append(day)
            day = self.next_after(day)
        return days

    def remaining(self, day):
        if self.until is None:
            return None
        return len(self.days_within(day, self.until))


def clashes(left, right, first, last):
    shared = []
    busy = right.days_within(first, last)
    for day in left.days_within(first, last):
        if day in busy:
            shared.append(day)
    return shared


def weekly(start, weekdays, weeks):
    days = []
    for week in range(weeks):
        for offset in sorted(weekdays):
            day = start - start % 7 + week * 7 + offset
            if day >= start:
                days.append(day)
    return days
