"""Each alert of docs/observability fires for its fault and for no other: real programs are broken,
their pages scraped, and Prometheus's own PromQL (conformance/alerts) asked.

    alerts.py ALERTS BINARIES    prints a √ or × for each check; exit code 1 with a ×

A scrape each 0.4 s counts as one each 30 s, so that half an hour of rules takes half a minute. All
faults happen side by side, each with a job of its own. Everything listens on 127.0.0.1.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request

from receivers import WAIT_S, Program, free_port

SCRAPES = 75
SCRAPE_S = 0.4
COUNTS_AS_S = 30
# From this scrape on what is broken once is broken.
BROKEN_AT = 12

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
RULES = f"{ROOT}/docs/observability/alerts.yaml"
DASHBOARD = f"{ROOT}/docs/observability/dashboard.json"
RETRIES = json.dumps(
    {
        "loadBalancingConfig": [{"round_robin": {}}],
        "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 3,
                    "initialBackoff": "0.01s",
                    "maxBackoff": "0.01s",
                    "backoffMultiplier": 1,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ],
    }
)
GRPCLB = '{"loadBalancingConfig":[{"grpclb":{"serviceName":"greeter"}}]}'

# For whom each alert has to fire. A client whose balancer is gone tries that address, too.
EXPECTED = {
    "EvenkeelUnevenLoad": ["uneven"],
    "EvenkeelDeadEndpointKept": ["dead-client", "lost-client"],
    "EvenkeelStaleEndpoints": ["stale-client"],
    "EvenkeelControlPlaneLost": ["lost-client"],
    "EvenkeelRetriesThrottled": ["throttled-client"],
    "EvenkeelDrainTooShort": ["cut"],
}


class Stage:
    """All programs, and where their pages are."""

    def __init__(self, folder, binaries):
        self.folder, self.binaries = folder, binaries
        self.pages = []
        self.count = 0

    def start(self, job, program, arguments):
        self.count += 1
        name = f"{job}-{self.count}"
        command = [f"{self.binaries}/{program}", *arguments]
        return name, Program(self.folder, name, command)

    def scraped(self, job, name, program, stream, pattern):
        self.pages.append((job, name, program.says(stream, pattern)))

    def greeter(self, job, *more):
        listen = ["--listen", "127.0.0.1:0", "--drain-delay", "0s"]
        metrics = ["--metrics-listen", "127.0.0.1:0"]
        name, program = self.start(job, "greeter", [*listen, *metrics, *more])
        port = program.says("out", r"Started server on port (\d+)")
        self.scraped(job, name, program, "err", r"metrics: http://(\S+)/metrics")
        return f"127.0.0.1:{port}"

    def client(self, job, target, *more):
        load = ["--duration", "10m", "--quiet", "--metrics-listen", "127.0.0.1:0"]
        job = f"{job}-client"
        name, program = self.start(job, "client", ["--target", target, *load, *more])
        pattern = r"metrics are on http://(\S+)/metrics"
        self.scraped(job, name, program, "err", pattern)

    def balancer(self, job, backends):
        listen = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]
        service = ["--backends", f"greeter={','.join(backends)}"]
        name, program = self.start(job, "grpclb", [*listen, *service])
        port = program.says("out", r"Started server on port (\d+)")
        self.scraped(job, name, program, "err", r"metrics: http://(\S+)/metrics")
        return program, f"127.0.0.1:{port}"


def set_up(stage):
    """Starts everything; returns the balancer that is lost later."""
    steady = ["--rate", "300"]
    for job, policy in (("even", "round_robin"), ("uneven", "pick_first")):
        greeters = [stage.greeter(job) for _ in range(3)]
        stage.client(job, f"ipv4:{','.join(greeters)}", "--lb-policy", policy, *steady)
    alive, dead = stage.greeter("dead"), f"127.0.0.1:{free_port()}"
    stage.client("dead", f"ipv4:{alive},{dead}", "--rate", "20", "--backoff-max", "1s")
    silent = f"127.0.0.1:{free_port()}"
    stage.client("stale", f"dns://{silent}/greeter.invalid:1", "--rate", "5")
    backends = [stage.greeter("lost"), stage.greeter("lost")]
    balancer, at = stage.balancer("lost-balancer", backends)
    lookaside = ["--service-config", GRPCLB, "--balancers", at, "--backoff-max", "1s"]
    stage.client("lost", f"ipv4:{backends[0]}", *lookaside, "--rate", "20")
    failing = stage.greeter("throttled", "--error-rate", "1")
    stage.client("throttled", f"ipv4:{failing}", "--service-config", RETRIES, "--rate", "20")
    slow = ["--delay", "3s", "--max-connection-age", "1s", "--max-connection-age-grace", "100ms"]
    stage.client("cut", f"ipv4:{stage.greeter('cut', *slow)}", "--rate", "20")
    return balancer


def follow(stage, balancer, write):
    """Scrapes everything again and again; the balancer is lost on the way."""
    begin, epoch_s = time.monotonic(), 1_700_000_000
    for scrape in range(SCRAPES):
        if scrape == BROKEN_AT:
            balancer.process.kill()
        for job, name, address in stage.pages:
            try:
                with urllib.request.urlopen(f"http://{address}/metrics", timeout=WAIT_S) as answer:
                    text = answer.read().decode()
            except OSError:
                if job != "lost-balancer":
                    raise
                continue
            at_s = epoch_s + scrape * COUNTS_AS_S
            write({"at_s": at_s, "job": job, "instance": name, "page": text})
        # Scrapes are by the clock, as Prometheus makes them.
        time.sleep(max(0.0, begin + (scrape + 1) * SCRAPE_S - time.monotonic()))


def main():
    path, binaries = sys.argv[1:]
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(folder, binaries)
        balancer = set_up(stage)
        follow(stage, balancer, lambda page: lines.append(json.dumps(page)))
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
