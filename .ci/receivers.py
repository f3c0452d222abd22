"""The checks of .ci/receivers: greeter, client and grpclb with a real collector, and scraped.

    receivers.py COLLECTOR BINARIES    prints a √ or × for each check; exit code 1 with a ×

Needs prometheus_client. Everything listens on 127.0.0.1, and ends with this program.
"""

import atexit
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

CALLS = 200
WAIT_S = 20
METHOD = "helloworld.Greeter/SayHello"
SPANS = ("Sent.", "Attempt.", "Recv.")

failed = 0


def verdict(name, is_good, detail):
    global failed
    print(f"  {'√' if is_good else '×'} {name}: {detail}", flush=True)
    failed |= not is_good


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def until(what, look):
    """The first result of `look` that is something, within WAIT_S."""
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    raise TimeoutError(f"{what}: not within {WAIT_S} s")


class Program:
    """A child whose output is kept in files."""

    def __init__(self, folder, name, command, env=None):
        self.paths = {stream: f"{folder}/{name}.{stream}" for stream in ("out", "err")}
        with open(self.paths["out"], "wb") as out, open(self.paths["err"], "wb") as err:
            full = {**os.environ, "RUST_LOG": "info", **(env or {})}
            self.process = subprocess.Popen(command, env=full, stdout=out, stderr=err)
        # Whatever becomes of this program.
        atexit.register(self.process.kill)

    def said(self, stream, pattern):
        with open(self.paths[stream], encoding="utf-8", errors="replace") as file:
            return re.search(pattern, file.read())

    def says(self, stream, pattern):
        def look():
            if self.process.poll() is not None and not self.said(stream, pattern):
                path, said = self.paths[stream], self.text("err")
                raise RuntimeError(f"{path}: ended before {pattern}: {said}")
            return self.said(stream, pattern)

        return until(pattern, look).group(1)

    def text(self, stream):
        with open(self.paths[stream], encoding="utf-8", errors="replace") as file:
            return file.read()

    def end(self):
        self.process.terminate()
        return self.process.wait(timeout=WAIT_S)


def collector(folder, path, number):
    """A collector that writes what it gets to its standard output, and its two ports."""
    ports = {"grpc": free_port(), "http/protobuf": free_port()}
    config = f"{folder}/collector-{number}.yaml"
    with open(config, "w", encoding="utf-8") as file:
        file.write(f"""
receivers:
  otlp:
    protocols:
      grpc: {{ endpoint: "127.0.0.1:{ports['grpc']}" }}
      http: {{ endpoint: "127.0.0.1:{ports['http/protobuf']}" }}
exporters:
  debug: {{ verbosity: detailed, use_internal_logger: false }}
service:
  telemetry: {{ metrics: {{ level: none }} }}
  pipelines:
    traces: {{ receivers: [otlp], exporters: [debug] }}
    metrics: {{ receivers: [otlp], exporters: [debug] }}
""")
    running = Program(folder, f"collector-{number}", [path, "--config", config])
    running.says("err", r"(Everything is ready)")
    return running, ports


def metric(text, name):
    """Labels and values, of histograms the counts, as the collector wrote this metric last."""
    parts = re.split(r"^Metric #\d+$", text, flags=re.MULTILINE)
    last = None
    for part in parts:
        if re.search(rf"^     -> Name: {re.escape(name)}$", part, re.MULTILINE):
            last = part
    points = {}
    begin = r"^(?:Number|Histogram)DataPoints #\d+$"
    for point in re.split(begin, last or "", flags=re.MULTILINE)[1:]:
        labels = dict(re.findall(r"^     -> ([\w.]+): Str\((.*)\)$", point, re.MULTILINE))
        value = re.search(r"^(?:Value|Count): (\d+)", point, re.MULTILINE)
        points[tuple(sorted(labels.items()))] = int(value.group(1))
    return points, last or ""


def of_collector(folder, path, binaries, number, protocol):
    """Spans and metrics of a greeter and a client, as a collector saw them."""
    running, ports = collector(folder, path, number)
    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{ports[protocol]}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_METRIC_EXPORT_INTERVAL": "500",
    }
    listen = ["--listen", "127.0.0.1:0", "--drain-delay", "0s"]
    greeter = Program(folder, f"greeter-{number}", [f"{binaries}/greeter", *listen], env)
    port = greeter.says("out", r"Started server on port (\d+)")
    target = f"ipv4:127.0.0.1:{port}"
    command = [f"{binaries}/client", "--target", target, "--count", str(CALLS), "--rate", "0"]
    client = subprocess.run(
        [*command, "--output", "json"],
        env={**os.environ, **env},
        capture_output=True,
        timeout=60,
        check=True,
    )
    report = json.loads(client.stdout)
    verdict(
        f"{protocol}: the client's calls",
        report["ok"] == CALLS and report["spans"]["dropped"] == 0,
        f"{report['ok']} of {CALLS} ok, spans {report['spans']}",
    )
    code = greeter.end()
    code = code or running.end()
    seen = running.text("out")
    names = re.findall(r"^    Name +: (\S+)$", seen, re.MULTILINE)
    counts = {prefix: sum(name.startswith(prefix) for name in names) for prefix in SPANS}
    verdict(
        f"{protocol}: spans that the collector took",
        code == 0 and all(count == CALLS for count in counts.values()),
        ", ".join(f"{count} {prefix}…" for prefix, count in counts.items()),
    )
    ours = [("grpc.method", METHOD), ("grpc.target", target)]
    both = {
        "grpc.client.attempt.started": ours,
        "grpc.client.attempt.duration": [*ours, ("grpc.status", "OK")],
        "grpc.client.call.duration": [*ours, ("grpc.status", "OK")],
        "grpc.server.call.started": ours[:1],
        "grpc.server.call.duration": [*ours[:1], ("grpc.status", "OK")],
    }
    for name, labels in both.items():
        points, text = metric(seen, name)
        count = points.get(tuple(sorted(labels)))
        is_cumulative = "AggregationTemporality: Cumulative" in text
        verdict(
            f"{protocol}: {name}",
            count == CALLS and len(points) == 1 and is_cumulative,
            f"{count} of {CALLS}, {', '.join(f'{k}={v}' for k, v in labels)}",
        )
    connections, _ = metric(seen, "grpc.subchannel.connection_attempts_succeeded")
    verdict(f"{protocol}: connections", list(connections.values()) == [1], str(connections))
    for program, log in (("greeter", greeter.text("err")), ("client", client.stderr.decode())):
        complaints = re.findall(r".*can't be sent.*", log)
        detail = str(complaints or "none")
        verdict(f"{protocol}: {program} has no complaint", not complaints, detail)


def scrape(address):
    """The families of a page, by name; raises what the parser does not take."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=WAIT_S) as answer:
        kind = answer.headers["content-type"]
        text = answer.read().decode()
    families = list(text_string_to_metric_families(text))
    # The parser calls a counter by its name without `_total`, which a gauge may have as well.
    names = [(family.name, family.type) for family in families]
    assert kind.startswith("text/plain; version=0.0.4"), kind
    assert len(names) == len(set(names)), f"a family twice: {names}"
    for family in families:
        assert family.type != "unknown" and family.documentation, f"{family.name}: {family.type}"
        of_family(family)
    return {family.name: family for family in families}


def of_family(family):
    """What the parser takes and Prometheus does not mean: histograms that do not add up, twins."""
    seen = set()
    for sample in family.samples:
        key = (sample.name, tuple(sorted(sample.labels.items())))
        assert key not in seen, f"twice: {key}"
        seen.add(key)
    if family.type != "histogram":
        return
    buckets, counts = {}, {}
    for sample in family.samples:
        labels = {name: value for name, value in sample.labels.items() if name != "le"}
        key = tuple(sorted(labels.items()))
        if sample.name.endswith("_bucket"):
            buckets.setdefault(key, []).append((float(sample.labels["le"]), sample.value))
        elif sample.name.endswith("_count"):
            counts[key] = sample.value
    for key, row in buckets.items():
        assert row == sorted(row) and row[-1][0] == float("inf"), f"{family.name} {key}: {row}"
        assert [count for _, count in row] == sorted(count for _, count in row), f"{key}: {row}"
        assert row[-1][1] == counts[key], f"{family.name} {key}: {row[-1]} and {counts[key]}"


def total(families, name, **labels):
    family = families.get(re.sub(r"_(count|total)$", "", name))
    samples = family.samples if family else []
    fitting = (s for s in samples if s.name == name and labels.items() <= s.labels.items())
    return sum(sample.value for sample in fitting)


def page(name, program, stream, pattern, check):
    """Scrapes what a program says that it serves."""
    address = program.says(stream, pattern)
    try:
        families = scrape(address)
        is_good, detail = check(families)
        verdict(name, is_good, f"{len(families)} families, {detail}")
    except AssertionError as error:
        verdict(name, False, str(error))


def of_pages(folder, binaries):
    """The pages of all programs, by Prometheus's parser."""
    listen = ["--listen", "127.0.0.1:0", "--drain-delay", "0s"]
    metrics = ["--metrics-listen", "127.0.0.1:0"]
    greeter = Program(folder, "greeter", [f"{binaries}/greeter", *listen, *metrics])
    port = greeter.says("out", r"Started server on port (\d+)")
    admin = ["--admin-listen", "127.0.0.1:0"]
    service = ["--backends", f"greeter=127.0.0.1:{port}"]
    balancer = Program(folder, "grpclb", [f"{binaries}/grpclb", *listen, *admin, *service])
    at = balancer.says("out", r"Started server on port (\d+)")
    command = [f"{binaries}/client", "--target", f"ipv4:127.0.0.1:{port}", "--rate", "200"]
    config = '{"loadBalancingConfig":[{"grpclb":{"serviceName":"greeter"}}]}'
    lookaside = ["--service-config", config, "--balancers", f"127.0.0.1:{at}", "--wait-for-ready"]
    client = Program(
        folder,
        "client",
        [*command, *lookaside, "--duration", "60s", "--quiet", *metrics],
    )
    address = client.says("err", r"metrics are on http://(\S+)/metrics")
    until("calls", lambda: total(scrape(address), "grpc_client_call_duration_seconds_count") > 50)
    pattern = r"metrics: http://(\S+)/metrics"

    def of_client(families):
        ok = total(families, "grpc_client_call_duration_seconds_count", grpc_status="OK")
        started = total(families, "grpc_client_attempt_started_total")
        connected = total(families, "evenkeel_grpclb_connected")
        detail = f"{ok:.0f} calls OK, {started:.0f} attempts, balancers that answer {connected:.0f}"
        return 50 < ok <= started and connected == 1, detail

    def of_greeter(families):
        ended = total(families, "grpc_server_call_duration_seconds_count", grpc_method=METHOD)
        opened = total(families, "evenkeel_server_events_total", event="streams_opened")
        return 50 < ended <= opened, f"{ended:.0f} calls ended, {opened:.0f} streams opened"

    def of_balancer(families):
        streams = total(families, "grpc_server_call_started_total")
        endpoints = total(families, "evenkeel_balancer_endpoints", state="serving")
        return streams >= 1 and endpoints == 1, f"{streams:.0f} streams, {endpoints:.0f} endpoints"

    client_pattern = r"metrics are on http://(\S+)/metrics"
    page("page of client", client, "err", client_pattern, of_client)
    page("page of greeter", greeter, "err", pattern, of_greeter)
    page("page of grpclb", balancer, "err", pattern, of_balancer)
    for program in (client, balancer, greeter):
        program.end()


def main():
    path, binaries = sys.argv[1:]
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    config = f"{root}/kustomize/components/otel/config.yaml"
    said = subprocess.run(
        [path, "validate", "--config", config], capture_output=True, text=True, check=False
    )
    verdict("kustomize/components/otel/config.yaml", said.returncode == 0, said.stderr or "valid")
    with tempfile.TemporaryDirectory() as folder:
        for number, protocol in enumerate(("grpc", "http/protobuf")):
            of_collector(folder, path, binaries, number, protocol)
        of_pages(folder, binaries)
    sys.exit(failed)


if __name__ == "__main__":
    main()
