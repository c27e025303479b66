"""A headless browser, driven over a pipe: no port, no package. Python's standard library only."""

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time

DEADLINE_S = 60
PROGRAMS = ["chromium", "chromium-browser", "google-chrome"]


def program():
    """The browser's program, or None."""
    named = os.environ.get("BROWSER_PROGRAM")
    return next((p for p in ([named] if named else PROGRAMS) if shutil.which(p)), None)


class Failed(Exception):
    """The page did not do what was expected of it."""


class Browser:
    """One browser with one page. What goes wrong in the page is kept in `problems`."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="crrl-browser-")
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        arguments = [
            program(), "--headless=new", "--remote-debugging-pipe", "--no-first-run", "--no-default-browser-check",
            "--disable-gpu", "--disable-extensions", "--disable-background-networking", "--disable-dev-shm-usage",
            "--hide-scrollbars", "--force-color-profile=srgb", f"--user-data-dir={self.folder}", "about:blank",
        ]
        if os.geteuid() == 0:
            # The browser's own sandbox needs an ordinary user; the page is ours.
            arguments.insert(1, "--no-sandbox")

        def pipes():
            # The browser reads descriptor 3 and writes descriptor 4.
            spare_in, spare_out = os.dup(theirs_in), os.dup(theirs_out)
            os.dup2(spare_in, 3)
            os.dup2(spare_out, 4)
            os.set_inheritable(3, True)
            os.set_inheritable(4, True)

        self.process = subprocess.Popen(
            arguments, preexec_fn=pipes, close_fds=False, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self.read_from, self.write_to = ours_in, ours_out
        self.buffer, self.next, self.answers, self.problems = b"", 0, {}, []
        self.session = None
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ["Page", "Runtime", "Log"]:
            self.ask(f"{domain}.enable")

    def close(self):
        """Ends the browser and forgets what it kept."""
        try:
            session, self.session = self.session, None
            self.ask("Browser.close")
            self.session = session
            self.process.wait(10)
        except Exception:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def ask(self, method, **parameters):
        """Asks the browser, and waits for its answer."""
        self.next += 1
        number = self.next
        message = {"id": number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write_to, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + DEADLINE_S
        while number not in self.answers:
            self._read(until)
        answer = self.answers.pop(number)
        if "error" in answer:
            raise Failed(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def _read(self, until):
        left = until - time.monotonic()
        if left <= 0 or not select.select([self.read_from], [], [], left)[0]:
            raise Failed("the browser does not answer")
        piece = os.read(self.read_from, 1 << 20)
        if not piece:
            raise Failed("the browser ended")
        *whole, self.buffer = (self.buffer + piece).split(b"\0")
        for text in whole:
            message = json.loads(text)
            if "id" in message:
                self.answers[message["id"]] = message
            elif message["method"] == "Runtime.exceptionThrown":
                details = message["params"]["exceptionDetails"]
                self.problems.append(details.get("exception", {}).get("description") or details["text"])
            elif message["method"] == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
                entry = message["params"]["entry"]
                self.problems.append(f"{entry['text']} {entry.get('url', '')}")

    def size(self, width, height, scale=1, dark=False):
        """The window, and which colours the person likes."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=width < 600)
        features = [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self.ask("Emulation.setEmulatedMedia", features=features)
        # The page hears of it with its next picture: whoever goes on before is heard first.
        self.run("new Promise((done) => { requestAnimationFrame(() => requestAnimationFrame(done)); setTimeout(done, 2000); })")

    def go(self, address):
        """Opens an address."""
        self.ask("Page.navigate", url=address)

    def run(self, script):
        """The value of a script in the page."""
        got = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in got:
            raise Failed(f"{script}: {got['exceptionDetails'].get('exception', {}).get('description')}")
        return got["result"].get("value")

    def wait(self, script, seconds=DEADLINE_S):
        """Waits until a script gives something that is true, and returns it."""
        until = time.monotonic() + seconds
        while True:
            try:
                value = self.run(script)
            except Failed:
                # Between two documents there is none to ask.
                value = None
            # An element comes as an empty object, which is something all the same.
            if value or value == {}:
                return value
            if time.monotonic() > until:
                raise Failed(f"this did not come true: {script}\nthe page says:\n{self.text()}")
            time.sleep(0.05)

    def text(self):
        """What a person reads, its beginning."""
        return (self.run("document.body.innerText") or "")[:3000]

    def place(self, selector, share=0.5):
        """A place in an element, once it stays where it is and nothing is in front of it: what comes late moves others."""
        return self.wait(f"""(async () => {{
            const at = () => {{ const e = document.querySelector({json.dumps(selector)}); if (!e) return null;
                e.scrollIntoView({{ block: 'center', behavior: 'instant' }}); const b = e.getBoundingClientRect();
                const [x, y] = [b.left + b.width * {share}, b.top + b.height / 2], hit = document.elementFromPoint(x, y);
                return hit && (e.contains(hit) || e.closest('label')?.contains(hit)) ? [x, y] : null; }};
            const before = at();
            await new Promise((done) => setTimeout(done, 60));
            const now = at();
            return before && now && before[0] === now[0] && before[1] === now[1] ? now : null; }})()""")

    def click(self, selector):
        """Clicks the middle of an element with the mouse."""
        x, y = self.place(selector)
        for kind in ["mousePressed", "mouseReleased"]:
            self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def choose(self, selector, value):
        """Chooses from a list, once the list has that choice: lists are filled when their answer comes."""
        element = f"document.querySelector({json.dumps(selector)})"
        self.wait(f"[...({element}?.options ?? [])].some((o) => o.value === {json.dumps(value)})")
        self.run(f"{element}.value = {json.dumps(value)}; {element}.dispatchEvent(new Event('change'))")

    def hover(self, selector, share=0.5):
        """Moves the mouse over an element."""
        x, y = self.place(selector, share)
        self.ask("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def key(self, key, code=None, number=0):
        """Presses a key."""
        text = key if len(key) == 1 else ("\r" if key == "Enter" else "")
        number = number or {"Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowRight": 39, "Tab": 9}.get(key, 0)
        self.ask("Input.dispatchKeyEvent", type="keyDown", key=key, code=code or key, text=text, windowsVirtualKeyCode=number)
        self.ask("Input.dispatchKeyEvent", type="keyUp", key=key, code=code or key, windowsVirtualKeyCode=number)

    def type(self, text):
        """Types into what has the focus."""
        self.ask("Input.insertText", text=text)

    def shot(self, path, full=False):
        """A picture of the window, or of the whole page."""
        got = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=full, optimizeForSpeed=False)
        with open(path, "wb") as file:
            file.write(base64.b64decode(got["data"]))
