"""Uses the dashboard as a person does, and fails where it does not do what a person expects.

    drive.py ADDRESS

Two runs are served there: 0 is over and its texts are hostile, 1 is a cluster that is up.
"""

import os
import struct
import sys
import tempfile

from cdp import Browser, Failed

WIDTHS = [(1280, 800), (390, 844)]


def expect(is_so, what):
    if not is_so:
        raise Failed(what)


def drive(page, address):
    page.size(*WIDTHS[0])
    page.go(address)
    page.wait("document.querySelector('#state .word')?.textContent === 'complete'")
    expect("token" not in page.run("location.href"), "the token stays in the address bar")
    expect(page.run("document.cookie") == "", "a script can read the cookie")
    page.wait("document.querySelectorAll('.node').length > 0")

    # Hostile text: shown, and nothing else.
    base = page.run("location.origin + location.pathname")
    page.go(base + "#/0/episode/5")
    page.wait("document.querySelectorAll('.turn').length > 1")
    page.wait("document.querySelector('main').textContent.includes('<img src=x onerror=')")
    expect(page.run("window.hacked === undefined && !document.querySelector('main img')"), "markup of a model was parsed")
    for name in ["U+202E", "U+200B", "\\\\x1b"]:
        expect(page.run(f"[...document.querySelectorAll('.odd')].some((e) => e.textContent === '{name}')"), f"{name} is hidden")
    expect(page.run("!/[\\u202e\\u200b\\u001b]/.test(document.querySelector('main').textContent)"), "a hidden character came through")

    # Rollouts: filter, rows, keys.
    page.key("Escape")
    page.wait("location.hash.startsWith('#/0/rollouts')")
    page.wait("document.querySelectorAll('tbody tr').length === 50")
    page.key("/")
    expect(page.run("document.activeElement.id") == "f-task", "/ does not go to the filter")
    page.type("off_by_one")
    page.wait("[...document.querySelectorAll('main > .scroll tbody tr')].every((r) => r.textContent.includes('off_by_one')) && document.querySelector('.pager').textContent.includes('of')")
    page.wait("location.hash.includes('task=off_by_one')")
    page.key("Escape")
    page.key("j")
    page.key("j")
    page.key("k")
    page.wait("document.activeElement === document.querySelector('main > .scroll tbody tr')")
    wanted = page.run("document.activeElement.querySelector('a').textContent")
    page.key("Enter")
    page.wait(f"document.querySelector('h1')?.textContent.startsWith('Episode {wanted}')")
    page.wait("document.querySelectorAll('.diff .added').length > 0 || document.querySelector('.empty')")
    page.run("history.back()")
    page.wait("document.querySelector('#f-task')?.value === 'off_by_one'")
    page.click(".tools button")
    page.wait("document.querySelectorAll('main > .scroll tbody tr').length === 50 && !location.hash.includes('task=')")
    page.run("document.querySelector('#f-state').value = 'trained'; document.querySelector('#f-state').dispatchEvent(new Event('change'))")
    page.wait("[...document.querySelectorAll('main > .scroll tbody tr')].every((r) => r.textContent.includes('trained')) && location.hash.includes('state=trained')")
    first = page.run("document.querySelector('main > .scroll tbody tr').textContent")
    page.key("n")
    page.wait(f"document.querySelector('.pager').textContent.includes('51 to') && document.querySelector('main > .scroll tbody tr').textContent !== {first!r}")

    # Curves: reading off, smoothing, the time axis.
    page.key("3")
    page.wait("document.querySelectorAll('.chart svg .line').length > 8")
    before = page.run("document.querySelector('.readout').textContent")
    page.hover(".chart svg", 0.3)
    page.wait(f"document.querySelector('.readout').textContent !== {before!r}")
    page.run("document.querySelector('.chart svg').focus()")
    page.key("ArrowLeft")
    page.wait("document.querySelector('.readout').textContent.includes('at step')")
    drawn = page.run("document.querySelector('.chart svg .line').getAttribute('d')")
    page.run("const s = document.querySelector('#smooth'); s.value = 1; s.dispatchEvent(new Event('input'))")
    page.wait(f"document.querySelector('.chart svg .line').getAttribute('d') !== {drawn!r}")
    page.click("input[value=time]")
    page.wait("document.querySelector('.chart svg').textContent.includes(' s')")

    # Comparison and faults.
    page.key("5")
    page.wait("document.querySelector('.fault-mark') && document.querySelector('tbody tr').textContent.includes('node lost')")
    page.key("6")
    page.wait("document.querySelector('h1')?.textContent === 'Compare'")

    # The cluster that is up.
    page.run("const r = document.querySelector('#run'); r.value = '1'; r.dispatchEvent(new Event('change'))")
    page.wait("document.querySelector('#state').dataset.kind === 'live' || document.querySelector('#state').dataset.kind === 'warn'")
    page.key("1")
    page.wait("document.querySelectorAll('.node').length === 4")
    step = page.run("document.querySelector('#state .detail').textContent")
    page.wait(f"document.querySelector('#state .detail').textContent !== {step!r}")
    page.key("2")
    page.wait("document.querySelectorAll('tbody tr').length === 21")
    page.key("/")
    page.type("name:engine")
    page.wait("document.querySelectorAll('tbody tr').length === 8")
    page.key("Escape")
    for _ in range(4):
        page.key("j")
    page.key("Enter")
    page.wait("document.querySelector('dialog[open] h2')?.textContent === 'engine'")
    page.key("Escape")
    page.wait("!document.querySelector('dialog[open]')")
    page.click("input[value=table]")
    page.wait("document.querySelectorAll('tbody tr').length === 2")
    page.click("th:nth-child(4) button")
    page.wait("document.querySelector('th:nth-child(4)').getAttribute('aria-sort')")
    page.key("/")
    page.type(" nothing:x")
    page.wait("document.querySelector('[aria-invalid=true]') && document.querySelector('#filter-says').textContent.includes('there is no field')")
    page.key("Escape")
    page.key("?")
    page.wait("document.querySelector('#help').open")
    page.key("Escape")

    # Nothing is cut off at either width, in any view; and it looks like something.
    for width, height in WIDTHS:
        page.size(width, height)
        for run, view in [(0, v) for v in ["overview", "curves", "rollouts", "episode/5", "faults", "compare"]] + [(1, "overview"), (1, "actors")]:
            page.go(f"{base}#/{run}/{view}")
            page.wait(f"location.hash === '#/{run}/{view}' && document.querySelector('h1')")
            page.wait("document.querySelector('main').innerText.length > 60")
            wide = page.run("document.documentElement.scrollWidth")
            expect(wide <= width, f"{view} is {wide} wide in a window of {width}")
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "shot.png")
            page.shot(path)
            with open(path, "rb") as file:
                size = struct.unpack(">II", file.read(24)[16:])
            expect(size == (width, height), f"the picture is {size}")

    # What a person without a mouse or without eyes needs.
    unnamed = page.run("""[...document.querySelectorAll('button, input, select, svg[role=img], table, nav, dialog[open]')]
        .filter((e) => !(e.getAttribute('aria-label') || e.getAttribute('aria-labelledby') || e.labels?.length || e.textContent.trim()))
        .map((e) => e.outerHTML.slice(0, 120))""")
    expect(not unnamed, f"without a name: {unnamed}")
    problems = [p for p in page.problems if "favicon" not in p]
    # A filter that cannot be read is answered with 400, which a browser logs.
    problems = [p for p in problems if "400 (Bad Request)" not in p]
    expect(not problems, f"the page complains: {problems}")


def main():
    page = Browser()
    try:
        drive(page, sys.argv[1])
    except Failed as failed:
        print(f"{failed}\nproblems: {page.problems}", file=sys.stderr)
        return 1
    finally:
        page.close()
    print("the page does what a person expects")
    return 0


if __name__ == "__main__":
    sys.exit(main())
