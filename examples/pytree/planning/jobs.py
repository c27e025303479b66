# Jobs that depend on one another and run on a number of workers.


class JobBoard:
    def __init__(self, workers=1):
        self.workers = workers
        self.needs = {}
        self.running = set()
        self.done = set()
        self.failed = set()

    def add(self, name, needs=()):
        if name in self.needs:
            raise ValueError("job exists: " + name)
        for need in needs:
            if need not in self.needs:
                raise ValueError("unknown job: " + need)
        self.needs[name] = list(needs)

    def is_ready(self, name):
        if name in self.done or name in self.failed:
            return False
        if name in self.running:
            return False
        return all(need in self.done for need in self.needs[name])

    def start_next(self):
        if len(self.running) >= self.workers:
            return None
        for name in self.needs:
            if self.is_ready(name):
                self.running.add(name)
                return name
        return None

    def finish(self, name, succeeded=True):
        if name not in self.running:
            raise ValueError("job is not running: " + name)
        self.running.remove(name)
        if succeeded:
            self.done.add(name)
        else:
            self.failed.add(name)

    def is_blocked(self, name):
        for need in self.needs[name]:
            if need in self.failed or self.is_blocked(need):
                return True
        return False

    def is_finished(self):
        if self.running:
            return False
        for name in self.needs:
            if self.is_ready(name):
                return False
        return True

    def retry(self, name):
        if name not in self.failed:
            return False
        self.failed.remove(name)
        return True


def critical_path(needs, lengths):
    finish = {}
    for name in needs:
        start = 0
        for need in needs[name]:
            start = max(start, finish[need])
        finish[name] = start + lengths.get(name, 0)
    return max(finish.values(), default=0)
