# Log records with levels, filters and a one-line text form.

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class Logbook:
    def __init__(self, level="info", capacity=1000):
        self.level = level
        self.capacity = capacity
        self.records = []
        self.muted = set()

    def is_enabled(self, source, level):
        if source in self.muted:
            return LEVELS[level] >= LEVELS["error"]
        return LEVELS[level] >= LEVELS[self.level]

    def log(self, source, level, message, **fields):
        if level not in LEVELS:
            raise ValueError("no such level: " + level)
        if not self.is_enabled(source, level):
            return False
        self.records.append((source, level, message, fields))
        if len(self.records) > self.capacity:
            self.records.pop(0)
        return True

    def mute(self, source, muted=True):
        if muted:
            self.muted.add(source)
        else:
            self.muted.discard(source)

    def tail(self, count, source=None):
        chosen = []
        for record in reversed(self.records):
            if source is not None and record[0] != source:
                continue
            chosen.insert(0, record)
            if len(chosen) == count:
                break
        return chosen

    def count_by_level(self):
        counts = {}
        for _, level, _, _ in self.records:
            counts[level] = counts.get(level, 0) + 1
        return counts


def quote(value):
    text = str(value)
    if text == "" or " " in text or "=" in text:
        return '"' + text.replace('"', "'") + '"'
    return text


def format_record(record, with_fields=True):
    source, level, message, fields = record
    line = "%-7s %s: %s" % (level.upper(), source, message)
    if with_fields:
        for key in sorted(fields):
            line += " %s=%s" % (key, quote(fields[key]))
    return line


def collapse(lines):
    result = []
    for line in lines:
        if result and result[-1][0] == line:
            result[-1] = (line, result[-1][1] + 1)
        else:
            result.append((line, 1))
    return result
