# Publishing events to whoever subscribed to their topic.


def topic_matches(pattern, topic):
    if pattern == "#" or pattern == topic:
        return True
    wanted, given = pattern.split("."), topic.split(".")
    if len(wanted) != len(given):
        return False
    for left, right in zip(wanted, given):
        if left != "*" and left != right:
            return False
    return True


class EventBus:
    def __init__(self, keep=100):
        self.keep = keep
        self.subscribers = []
        self.history = []
        self.errors = 0

    def subscribe(self, pattern, handler, replay=False):
        self.subscribers.append((pattern, handler))
        if not replay:
            return 0
        past = self.past(pattern)
        for topic, payload in past:
            handler(topic, payload)
        return len(past)

    def unsubscribe(self, handler):
        before = len(self.subscribers)
        kept = [entry for entry in self.subscribers if entry[1] is not handler]
        self.subscribers = kept
        return before - len(kept)

    def past(self, pattern, limit=None):
        found = [event for event in self.history if topic_matches(pattern, event[0])]
        if limit is not None and limit < len(found):
            return found[len(found) - limit:]
        return found

    def remember(self, topic, payload):
        if self.keep == 0:
            return
        self.history.append((topic, payload))
        while len(self.history) > self.keep:
            self.history.pop(0)

    def publish(self, topic, payload=None):
        delivered = 0
        self.remember(topic, payload)
        for pattern, handler in list(self.subscribers):
            if not topic_matches(pattern, topic):
                continue
            if self.deliver(handler, topic, payload):
                delivered += 1
        return delivered

    def deliver(self, handler, topic, payload):
        try:
            handler(topic, payload)
        except ValueError:
            self.errors += 1
            return False
        return True
