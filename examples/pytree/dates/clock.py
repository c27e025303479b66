# Times of day and durations written as text.

MINUTES_PER_DAY = 24 * 60


def parse_time(text):
    hours, mark, minutes = text.partition(":")
    if not mark or not hours.isdigit() or not minutes.isdigit():
        raise ValueError("expected HH:MM")
    total = int(hours) * 60 + int(minutes)
    if int(minutes) > 59 or total >= MINUTES_PER_DAY:
        raise ValueError("time out of range")
    return total


def format_time(minutes, twelve_hours=False):
    hours, rest = divmod(minutes % MINUTES_PER_DAY, 60)
    if not twelve_hours:
        return "%02d:%02d" % (hours, rest)
    suffix = "am" if hours < 12 else "pm"
    shown = hours % 12
    if shown == 0:
        shown = 12
    return "%d:%02d %s" % (shown, rest, suffix)


def parse_duration(text):
    units = {"d": 86400, "h": 3600, "m": 60, "s": 1}
    total = 0
    number = ""
    for char in text:
        if char.isdigit():
            number += char
        elif char in units and number:
            total += int(number) * units[char]
            number = ""
    return total


def format_duration(seconds):
    if seconds == 0:
        return "0s"
    parts = []
    for size, letter in ((86400, "d"), (3600, "h"), (60, "m"), (1, "s")):
        count = seconds // size
        seconds -= count * size
        if count > 0:
            parts.append("%d%s" % (count, letter))
    return " ".join(parts)


def minutes_until(now, then):
    wait = then - now
    if wait < 0:
        wait += MINUTES_PER_DAY
    return wait


def is_within(minute, opening, closing):
    if opening == closing:
        return True
    if opening < closing:
        return opening <= minute < closing
    return minute >= opening or minute < closing


def round_to(minute, step, up=False):
    extra = minute % step
    if extra == 0:
        return minute
    if up or extra * 2 >= step:
        return minute - extra + step
    return minute - extra
