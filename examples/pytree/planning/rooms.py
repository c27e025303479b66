# Booking rooms for meetings; times are whole minutes.


class RoomBook:
    def __init__(self, rooms):
        self.seats = dict(rooms)
        self.bookings = {name: [] for name in rooms}

    def is_free(self, room, start, end):
        for other_start, other_end, _ in self.bookings[room]:
            if start < other_end and other_start < end:
                return False
        return True

    def candidates(self, people, start, end):
        found = []
        for room, seats in self.seats.items():
            if seats >= people and self.is_free(room, start, end):
                found.append((seats, room))
        return [room for _, room in sorted(found)]

    def book(self, people, start, end, title=""):
        if end <= start:
            raise ValueError("a meeting ends after it starts")
        rooms = self.candidates(people, start, end)
        if not rooms:
            return None
        self.bookings[rooms[0]].append((start, end, title))
        return rooms[0]

    def cancel(self, room, start):
        for booking in self.bookings.get(room, []):
            if booking[0] == start:
                self.bookings[room].remove(booking)
                return True
        return False

    def next_free(self, room, start, minutes):
        for other_start, other_end, _ in sorted(self.bookings[room]):
            if start + minutes <= other_start:
                break
            if other_end > start:
                start = other_end
        return start

    def usage(self, room, opening, closing):
        used = 0
        for start, end, _ in self.bookings[room]:
            used += max(0, min(end, closing) - max(start, opening))
        return used / (closing - opening)


def rooms_needed(meetings):
    changes = []
    for start, end in meetings:
        changes += [(start, 1), (end, -1)]
    busy = most = 0
    for _, change in sorted(changes):
        busy += change
        most = max(most, busy)
    return most


def most_meetings(meetings):
    chosen = []
    for start, end in sorted(meetings, key=lambda meeting: meeting[1]):
        if not chosen or start >= chosen[-1][1]:
            chosen.append((start, end))
    return chosen
