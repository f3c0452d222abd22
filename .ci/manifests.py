"""What must hold for the manifests of kustomize/ and is said by neither kustomize nor the API
server: grace periods that are long enough, selectors that select, rights that nobody needs, images.

    manifests.py --images ROOT BUILD…          images of all built manifests against nix/images.toml
    manifests.py --some-images ROOT BUILD…     the same, where some manifests are missing
    manifests.py FOLDER APPLIED PODS <OBJECTS  a namespace's objects, as `kubectl get -o json` has
                                               them; writes a pod for each template to PODS

Exit code 1 when something is wrong; what it is goes to standard output.
"""

import json
import re
import sys
import tomllib

# The Deployments of each overlay, by the names of the 2018 example, whose commands still work.
DEPLOYMENTS = {
    "round-robin": ["greeter-client-round-robin", "greeter-server"],
    "envoy-static": ["greeter-client-with-envoy-static", "greeter-server"],
    "envoy-dynamic": ["greeter-client-with-envoy-dynamic", "greeter-server"],
    "envoy-dynamic-without-istio": [
        "greeter-client-with-envoy-dynamic",
        "greeter-server",
        "greeter-server-balancer",
    ],
    "istio": ["greeter-client-istio", "greeter-server-istio"],
    "lookaside": ["greeter-client-lookaside-lb", "greeter-server", "greeter-server-balancer"],
    "kubernetes": ["greeter-client-kubernetes", "greeter-server"],
}
# What Kubernetes recommends, and which kinds have all of it; the others are `part-of`.
LABELS = ["component", "instance", "name", "part-of", "version"]
LABELLED = ["Deployment", "Role", "RoleBinding", "Service", "ServiceAccount"]
RIGHTS = [
    {
        "apiGroups": ["discovery.k8s.io"],
        "resources": ["endpointslices"],
        "verbs": ["list", "watch"],
    }
]


def images(root, builds, complete):
    """Findings, and what was compared."""
    with open(f"{root}/nix/images.toml", "rb") as file:
        listed = tomllib.load(file)["images"]
    with open(f"{root}/Cargo.toml", "rb") as file:
        version = tomllib.load(file)["workspace"]["package"]["version"]
    seen = set()
    for build in builds:
        with open(build, encoding="utf-8") as file:
            seen |= set(re.findall(r"^\s*(?:- )?image: (\S+)$", file.read(), re.MULTILINE))
    for image in sorted(seen):
        name, _, tag = image.partition(":")
        if tag in ("", "latest"):
            yield f"{image}: expected a tag that stays; kustomize/components/images sets it"
        if name.startswith("evenkeel-") and name not in listed:
            yield f"{image} is not in nix/images.toml, so nobody builds it"
        if name in listed and tag != version:
            yield f"{image}: expected the tag {version}, the version in Cargo.toml"
    used = {image.partition(":")[0] for image in seen}
    for name in sorted(set(listed) - used) if complete else []:
        yield f"{name} is in nix/images.toml, and no manifest uses it"


def seconds(text):
    """`20s` or `1m30s`."""
    parts = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s)?", text)
    return int(parts[1] or 0) * 60 + int(parts[2] or 0)


def of_container(name, pod, container):
    environment = {entry["name"]: entry.get("value", "") for entry in container.get("env", [])}
    drain = [seconds(value) for key, value in environment.items() if "_DRAIN_" in key]
    sleep = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    grace = pod["terminationGracePeriodSeconds"]
    if drain and not sleep + sum(drain) < grace:
        needed = f"preStop {sleep} s and drain {sum(drain)} s"
        yield f"{name}: {needed} do not fit into {grace} s of grace"
    for kind in ("requests", "limits"):
        if "memory" not in container.get("resources", {}).get(kind, {}):
            yield f"{name}: no {kind} of memory"
    ports = [port["name"] for port in container.get("ports", [])]
    if "grpc" in ports or "grpclb" in ports:
        probes = {
            kind: container.get(f"{kind}Probe", {}).get("grpc", {}).get("service", "")
            for kind in ("startup", "readiness", "liveness")
            if f"{kind}Probe" in container
        }
        if probes != {"startup": "liveness", "readiness": "readiness", "liveness": "liveness"}:
            yield f"{name}: expected gRPC probes by liveness and readiness, found {probes}"
        if not sleep:
            yield f"{name}: no preStop sleep, so clients hear of the end after it"


def of_deployment(deployment, objects):
    name = deployment["metadata"]["name"]
    pod = deployment["spec"]["template"]["spec"]
    if deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] != 0:
        yield f"{name}: maxUnavailable is not 0"
    for container in pod["containers"] + pod.get("initContainers", []):
        yield from of_container(f"{name}/{container['name']}", pod, container)
    account = pod.get("serviceAccountName", "default")
    if account not in objects["ServiceAccount"]:
        yield f"{name}: its ServiceAccount {account} is not there"
    bound = {
        subject["name"]
        for binding in objects.get("RoleBinding", {}).values()
        for subject in binding["subjects"]
        if binding["roleRef"]["name"] in objects.get("Role", {})
    }
    if pod.get("automountServiceAccountToken", True) != (account in bound):
        yield f"{name}: a token is for who has a Role, and only for those"
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    for constraint in pod.get("topologySpreadConstraints", []):
        yield from selects(f"{name}: spread", constraint["labelSelector"]["matchLabels"], [labels])


def selects(name, selector, templates):
    found = [labels for labels in templates if selector.items() <= labels.items()]
    if len(found) != 1:
        yield f"{name}: the selector {selector} fits {len(found)} kinds of pods, expected 1"


def of_objects(folder, objects):
    kind, _, overlay = folder.partition("/")
    deployments = objects.get("Deployment", {})
    expected = DEPLOYMENTS.get(overlay)
    if kind == "overlays" and sorted(deployments) != expected:
        yield f"expected the Deployments {expected}, found {sorted(deployments)}"
    templates = [d["spec"]["template"]["metadata"]["labels"] for d in deployments.values()]
    for deployment in deployments.values():
        yield from of_deployment(deployment, objects)
    for service in objects.get("Service", {}).values():
        name = service["metadata"]["name"]
        yield from selects(f"Service {name}", service["spec"]["selector"], templates)
        # A headless Service without ports is nobody's target.
        for port in service["spec"].get("ports", []):
            if port.get("appProtocol") != "grpc" or port["name"] not in ("grpc", "grpclb"):
                yield f"Service {name}: expected grpc or grpclb with appProtocol grpc, found {port}"
    for name, budget in objects.get("PodDisruptionBudget", {}).items():
        selector = budget["spec"]["selector"]["matchLabels"]
        yield from selects(f"PodDisruptionBudget {name}", selector, templates)
    for name, role in objects.get("Role", {}).items():
        if role["rules"] != RIGHTS:
            yield f"Role {name}: expected list and watch of EndpointSlices and nothing else"
    for kind, named in objects.items():
        for name, one in named.items():
            labels = one["metadata"].get("labels", {})
            wanted = LABELS if kind in LABELLED else ["part-of"]
            missing = [label for label in wanted if f"app.kubernetes.io/{label}" not in labels]
            if missing:
                yield f"{kind} {name}: no label app.kubernetes.io/{', '.join(missing)}"


def applied(items, names):
    """What was applied, by kind and name; the server makes more, the account `default` for one."""
    objects = {}
    for one in items:
        name, kind = one["metadata"]["name"], one["kind"]
        begins = (f"{kind.lower()}.", f"{kind.lower()}/")
        if any(line.startswith(begins) for line in names[name]):
            objects.setdefault(kind, {})[name] = one
    return objects


def pods(objects):
    items = []
    for name, deployment in objects.get("Deployment", {}).items():
        template = deployment["spec"]["template"]
        metadata = {"name": name, "labels": template["metadata"]["labels"]}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
        items.append(pod)
    return {"apiVersion": "v1", "kind": "List", "items": items}


def main(arguments):
    if arguments[0] in ("--images", "--some-images"):
        findings = list(images(arguments[1], arguments[2:], arguments[0] == "--images"))
        agree = "names and tags are those of nix/images.toml and Cargo.toml"
        for finding in findings or [agree]:
            print(f"  {'×' if findings else '√'} images: {finding}")
        return bool(findings)
    folder, list_of_applied, pods_file = arguments
    names = {}
    with open(list_of_applied, encoding="utf-8") as file:
        for line in file:
            # `deployment.apps/greeter-server unchanged`
            names.setdefault(line.split()[0].partition("/")[2], []).append(line)
    items = json.load(sys.stdin)["items"]
    objects = applied([one for one in items if one["metadata"]["name"] in names], names)
    seen, wanted = (sum(map(len, these.values())) for these in (objects, names))
    if seen != wanted:
        print(f"looked at {seen} of {wanted} objects; .ci/manifests asks for too few kinds")
        return True
    with open(pods_file, "w", encoding="utf-8") as file:
        json.dump(pods(objects), file)
    findings = list(of_objects(folder, objects))
    print("; ".join(findings), end="\n" if findings else "")
    return bool(findings)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
