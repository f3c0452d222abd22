"""Each alert of docs/observability fires for faults of the lab and for no others: `lab serve` plays
an example for each, a button's request breaks something, everything is scraped, and Prometheus's
own PromQL (conformance/alerts) is asked.

    alerts.py ALERTS BINARIES    prints a √ or × for each check; exit code 1 with a ×

A scrape each 0.4 s counts as one each 15 s, so that half an hour of rules takes less than a minute.
All faults happen side by side, each in a show of its own, and one show has none. Everything listens
on 127.0.0.0/8.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request

from receivers import WAIT_S, Program, until

SCRAPES = 130
SCRAPE_S = 0.4
COUNTS_AS_S = 15
# From this scrape on what is broken is broken.
BROKEN_AT = 12
# So many that the rule for uneven load, which lets a quiet service be, sees them.
RATE_PER_S = 200

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
RULES = f"{ROOT}/docs/observability/alerts.yaml"
DASHBOARD = f"{ROOT}/docs/observability/dashboard.json"

# Each show: its example, and the requests of the buttons that break it.
SHOWS = {
    "well": ("round-robin", []),
    "uneven": ("round-robin", ["policy/pick_first"]),
    "dead": ("round-robin", ["backends/2/kill"]),
    "stale-dns": ("round-robin", ["source/silence"]),
    "stale-watch": ("kubernetes", ["source/silence"]),
    "stale-balancer": ("lookaside", ["source/silence"]),
    "lost": ("lookaside", ["balancers/1/kill", "balancers/2/kill"]),
    "throttled": ("round-robin", ["policy/round_robin+retry", "backends/2/fail"]),
    "cut": ("round-robin", ["backends/2/cut"]),
}
# Whom they kill: nobody answers there any more.
KILLED = {("dead", "greeter"), ("lost", "grpclb")}

# For whom each alert has to fire. A client whose balancers are gone tries their addresses, too.
EXPECTED = {
    "EvenkeelUnevenLoad": ["uneven-greeter"],
    "EvenkeelDeadEndpointKept": ["dead-client", "lost-client"],
    "EvenkeelStaleEndpoints": [
        "stale-balancer-grpclb",
        "stale-dns-client",
        "stale-watch-client",
    ],
    "EvenkeelControlPlaneLost": ["lost-client"],
    "EvenkeelRetriesThrottled": ["throttled-client"],
    "EvenkeelDrainTooShort": ["cut-greeter"],
}


class Show:
    """One `lab serve`, and who is to be scraped in it."""

    def __init__(self, folder, lab, name, example):
        self.name = name
        command = [lab, "serve", example, "--port", "0", "--rate", str(RATE_PER_S)]
        # No example here has an Envoy; one is not to be looked for.
        self.program = Program(folder, name, [*command, "--envoy", "/nowhere"])
        self.url = self.program.says("out", r"(http://\S+)/")
        until(f"{name} plays", self.targets)

    def targets(self):
        """Prometheus's HTTP service discovery, as the lab serves it."""
        found = json.loads(fetch(f"{self.url}/targets"))
        named = [(one["labels"], one["targets"][0]) for one in found]
        return [(labels["job"], labels["instance"], address) for labels, address in named]

    def wish(self, path):
        fetch(urllib.request.Request(f"{self.url}/{path}", method="POST"))

    def scrape(self, is_broken, write):
        for job, instance, address in self.targets():
            try:
                text = fetch(f"http://{address}/metrics")
            except OSError:
                # A client that has just been replaced is not there for a moment, either.
                if not is_broken or (job != "client" and (self.name, job) not in KILLED):
                    raise
                continue
            write({"job": f"{self.name}-{job}", "instance": instance, "page": text})


def fetch(what):
    with urllib.request.urlopen(what, timeout=WAIT_S) as answer:
        return answer.read().decode()


def follow(shows, write):
    """Scrapes everything again and again; on the way each show is broken."""
    begin, epoch_s = time.monotonic(), 1_700_000_000
    for scrape in range(SCRAPES):
        if scrape == BROKEN_AT:
            for show in shows:
                for path in SHOWS[show.name][1]:
                    show.wish(path)
        at_s = epoch_s + scrape * COUNTS_AS_S
        for show in shows:
            show.scrape(scrape >= BROKEN_AT, lambda page: write({"at_s": at_s, **page}))
        # Scrapes are by the clock, as Prometheus makes them.
        time.sleep(max(0.0, begin + (scrape + 1) * SCRAPE_S - time.monotonic()))


def main():
    path, binaries = sys.argv[1:]
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        lab = f"{binaries}/lab"
        shows = [Show(folder, lab, name, example) for name, (example, _) in SHOWS.items()]
        follow(shows, lambda page: lines.append(json.dumps(page)))
        for show in shows:
            show.program.process.terminate()
        for show in shows:
            show.program.process.wait(WAIT_S)
    asked = subprocess.run(
        [path, RULES, DASHBOARD],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if asked.returncode != 0:
        print(f"  × docs/observability by Prometheus's own code: {asked.stderr.strip()}")
        sys.exit(1)
    answer = json.loads(asked.stdout)
    print(f"  √ dashboard.json: {answer['expressions']} expressions are PromQL")
    failed = sorted(answer["fired"]) != sorted(EXPECTED)
    if failed:
        print(f"  × alerts.yaml: expected {sorted(EXPECTED)}, found {sorted(answer['fired'])}")
    for name, jobs in answer["fired"].items():
        wanted = EXPECTED.get(name)
        failed |= jobs != wanted
        mark = "√" if jobs == wanted else "×"
        print(f"  {mark} {name}: fires for {jobs}, expected for {wanted}")
    sys.exit(failed)


main()
