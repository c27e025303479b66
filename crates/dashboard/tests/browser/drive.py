"""Uses the dashboard as a person does, and fails where it does not do what a person expects.

    drive.py ADDRESS ASKS

Two runs are served there: 0 is over and its texts are hostile, 1 is a cluster that is up. In 1 episode 900001
is under way, its texts hostile too; what happens in it next happens once a file of its number, from 1 on, is in
the folder ASKS.
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


def expect_harmless(page):
    """Whatever models and tools wrote is text, and what cannot be seen in it has a name."""
    expect(page.run("window.hacked === undefined && !document.querySelector('main img')"), "markup of a model was parsed")
    for name in ["U+202E", "U+200B", "\\\\x1b"]:
        expect(page.run(f"[...document.querySelectorAll('.odd')].some((e) => e.textContent === '{name}')"), f"{name} is hidden")
    expect(page.run("!/[\\u202e\\u200b\\u001b]/.test(document.querySelector('main').textContent)"), "a hidden character came through")


def follow(page, base, asks):
    """An episode under way, from the list to its end, with the keyboard."""
    def go_on(step):
        with open(os.path.join(asks, str(step)), "w"):
            pass

    page.go(f"{base}#/1/rollouts")
    page.wait("document.querySelector('.live tbody tr')?.textContent.includes('900001')")
    page.wait("document.querySelector('.live').open")
    page.key("j")
    page.wait("document.activeElement === document.querySelector('.live tbody tr')")
    page.key("Enter")
    page.wait("document.querySelector('h1')?.textContent.includes('Episode 900001')")
    page.wait("document.querySelectorAll('.following .turn').length === 1")
    page.wait("document.querySelector('.turn .said').textContent.includes('I look at the queue.')")
    page.wait("document.querySelector('.turn .call summary').textContent.includes('being carried out')")
    page.wait("document.querySelector('.following .now').textContent.includes('shell cat queue.py')")
    page.wait("document.querySelector('.following [role=status]').textContent.includes('Turn 1: shell, being carried out')")
    expect_harmless(page)

    # The answer comes; what a person had closed stays closed, and the mark stays on it.
    page.run("document.querySelector('.turn .call').open = false; document.querySelector('.turn .call summary').focus()")
    go_on(1)
    page.wait("document.querySelector('.turn .call summary').textContent.includes('worked')")
    expect(page.run("!document.querySelector('.turn .call').open"), "a call that was closed opened by itself")
    expect(page.run("document.activeElement === document.querySelector('.turn .call summary')"), "the mark was lost")
    page.run("document.querySelector('.turn .call').open = true")
    page.wait("document.querySelector('.turn .call').textContent.includes('class Queue:')")
    expect_harmless(page)

    # Tokens by their probability, those of the turn that comes next too.
    coloured = "[...document.querySelectorAll('.following .turn')].every((turn) => turn.querySelectorAll('.said .token.p3').length > 3)"
    page.choose("#colour", "logprob")
    page.wait(f"{coloured} && !document.querySelector('.following .legend').hidden")

    # The newest turn is in sight, unless the person looks elsewhere.
    page.size(1280, 500)
    go_on(2)
    page.wait("document.querySelectorAll('.following .turn').length === 2")
    page.wait(coloured)
    page.choose("#colour", "")
    page.wait("!document.querySelector('.following .turn .token') && location.hash === '#/1/episode/900001'")
    in_sight = "(() => { const b = document.querySelector('.turn:last-child').getBoundingClientRect(); return b.bottom <= innerHeight + 1 && b.top >= 0; })()"
    page.wait(in_sight)
    page.run("window.scrollTo(0, 0)")
    page.wait("!document.querySelector('#stay').checked")
    page.click("#stay")
    page.wait(f"document.querySelector('#stay').checked && {in_sight}")
    page.size(*WIDTHS[0])

    # It is over: what it earned takes the place of what was followed.
    go_on(3)
    page.wait("document.querySelector('h1').textContent.includes('solved') && !document.querySelector('.following')")
    page.wait("[...document.querySelectorAll('tbody th')].some((e) => e.textContent === 'line')")
    page.wait("document.querySelector('main > [role=status]').textContent.includes('The episode is over: solved, reward 0.875')")
    expect(page.run("document.querySelectorAll('.turn').length") == 2, "its turns are gone")


def drive(page, address, asks):
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
    expect_harmless(page)

    # Rollouts: filter, rows, keys.
    page.key("Escape")
    page.wait("location.hash.startsWith('#/0/rollouts')")
    page.wait("document.querySelectorAll('tbody tr').length === 50")
    page.key("/")
    page.wait("document.activeElement.id === 'f-task'")
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
    page.choose("#f-state", "trained")
    page.wait("[...document.querySelectorAll('main > .scroll tbody tr')].every((r) => r.textContent.includes('trained')) && location.hash.includes('state=trained')")
    first = page.run("document.querySelector('main > .scroll tbody tr').textContent")
    page.key("n")
    page.wait(f"document.querySelector('.pager').textContent.includes('51 to') && document.querySelector('main > .scroll tbody tr').textContent !== {first!r}")

    # Curves: reading off, smoothing, the time axis.
    page.key("3")
    page.wait("document.querySelectorAll('.chart svg .line').length > 8 && document.querySelector('.chart svg .injected .fault-mark')")
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
    page.wait("document.querySelectorAll('.timeline g.injected').length === 1")
    page.wait("[...document.querySelectorAll('section:not([hidden]) tbody tr')].some((row) => row.textContent.includes('stands still') && row.textContent.includes('anna'))")
    page.key("6")
    page.wait("document.querySelector('h1')?.textContent === 'Compare' && document.querySelectorAll('.chart svg .line').length > 1")

    # The cluster that is up.
    page.choose("#run", "1")
    page.wait("document.querySelector('#state').dataset.kind === 'live' || document.querySelector('#state').dataset.kind === 'warn'")
    page.key("1")
    page.wait("document.querySelectorAll('.node').length === 4")

    # What nodes measure; what they do not is absent.
    rows = "[...document.querySelectorAll('.vitals[open] tbody tr')].map((r) => [...r.children].map((c) => c.textContent))"
    page.wait(f"{rows}.length === 4")
    learner = page.wait(f"{rows}.find(([node, cpu]) => node === 'learner' && cpu === '388 %')")
    expect(learner[3:5] + learner[6:] == ["0: 93 %, 40 of 80 GiB, H100 80GB HBM3", "0.31 / 4.2 ms", "0.1.0"], f"the learner measures {learner}")
    rollout = page.run(f"{rows}.find(([node]) => node === 'rollout-0')")
    expect(rollout == ["rollout-0", "–", "420 MiB", "–", "–", "–", "–"], f"rollout-0 measures {rollout}")
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
    page.wait("!document.querySelector('#help').open")

    follow(page, base, asks)

    # Nothing is cut off at either width, in any view; and it looks like something.
    for width, height in WIDTHS:
        page.size(width, height)
        for run, view in [(0, v) for v in ["overview", "curves", "rollouts", "episode/5", "faults", "compare"]] + [(1, v) for v in ["overview", "actors", "rollouts"]]:
            # What is measured is this view, with all that was asked for, and not the one before.
            page.run("document.querySelector('h1').dataset.before = ''")
            page.go(f"{base}#/{run}/{view}")
            page.wait(f"location.hash === '#/{run}/{view}' && document.querySelector('h1:not([data-before])')")
            page.wait("document.querySelector('main').innerText.length > 60 && document.querySelector('main').ariaBusy === 'false'")
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
        drive(page, *sys.argv[1:3])
    except Failed as failed:
        print(f"{failed}\nproblems: {page.problems}", file=sys.stderr)
        return 1
    finally:
        page.close()
    print("the page does what a person expects")
    return 0


if __name__ == "__main__":
    sys.exit(main())
