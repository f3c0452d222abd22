"""What is in image archives: for docs/images.md, and for the tier `overlays` of .ci/run.

    images.py FOLDER          what each image holds; × where it is not as docs/images.md says
    images.py FOLDER OTHER    the same, and whether both folders hold the same images

With ../shared/nix/check the names below /nix/store depend on the project's folder, because its
derivations do. Two images are therefore the same when all files, links, modes, owners and settings
are, after the hashes in these names are left out. With Nix itself the names are equal, too.
"""

import hashlib
import json
import pathlib
import re
import stat
import sys
import tarfile
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHELLS = {"sh", "bash", "dash", "busybox", "ash", "zsh"}


def named(text):
    """Without the hashes of the store."""
    return re.sub(r"/nix/store/[a-z0-9]{32}-", "/nix/store/", text)


def opened(archive):
    """The settings, and (member, digest) of each layer's entries."""
    with tarfile.open(archive) as outer:
        files = {name.name.removeprefix("./"): name for name in outer.getmembers()}
        manifest = json.load(outer.extractfile(files["manifest.json"]))[0]
        config = json.load(outer.extractfile(files[manifest["Config"]]))
        entries = []
        for layer in manifest["Layers"]:
            with tarfile.open(fileobj=outer.extractfile(files[layer])) as inner:
                for member in inner:
                    content = inner.extractfile(member).read() if member.isfile() else b""
                    entries.append((member, hashlib.sha256(content).hexdigest()))
    return manifest["RepoTags"], config, entries


def mode(member):
    kind = "l" if member.issym() else "d" if member.isdir() else "-"
    return kind + stat.filemode(member.mode)[1:]


def place(member):
    return f"/{member.name.removeprefix('./')}"


def fingerprint(archive):
    """One line for each thing that an image is made of."""
    tags, config, entries = opened(archive)
    lines = [named(json.dumps([tags, config["config"], config["created"]], sort_keys=True))]
    for member, digest in entries:
        what = named(member.linkname) or (digest if member.isfile() else "")
        owner = f"{member.uid}:{member.gid}"
        lines.append(f"{mode(member)} {owner} {member.mtime:.0f} {named(place(member))} {what}")
    return sorted(lines)


def findings(archive):
    with open(ROOT / "nix/images.toml", "rb") as file:
        wanted = tomllib.load(file)
    with open(ROOT / "Cargo.toml", "rb") as file:
        version = tomllib.load(file)["workspace"]["package"]["version"]
    tags, config, entries = opened(archive)
    settings = config["config"]
    name = tags[0].partition(":")[0]
    if name not in wanted["images"] or tags != [f"{name}:{version}"]:
        yield f"expected a name of nix/images.toml and the tag {version}, found {tags}"
    if settings.get("User") != wanted["user"]:
        yield f"expected the user {wanted['user']}, found {settings.get('User')}"
    labels = settings.get("Labels", {})
    for label in ("version", "revision", "title", "licenses"):
        if not labels.get(f"org.opencontainers.image.{label}"):
            yield f"no label org.opencontainers.image.{label}"
    places = {place(member) for member, _ in entries}
    if settings["Entrypoint"][0] not in places:
        yield f"it starts {settings['Entrypoint'][0]}, which is not in it"
    if "/etc/ssl/certs/ca-bundle.crt" not in places:
        yield "no CA certificates"
    for program in sorted(places):
        if pathlib.PurePath(program).name in SHELLS:
            yield f"a shell: {program}"
    uid = int(wanted["user"].partition(":")[0])
    for member, _ in entries:
        # Of files without an owner's name only others' rights count for this user.
        if not member.issym() and (member.uid == uid or member.mode & 0o002):
            yield f"its user can write to {member.name}"
        if member.mode & 0o6000:
            yield f"{member.name} starts with the rights of its owner"


def main(arguments):
    folder, *other = map(pathlib.Path, arguments)
    wrong = False
    archives = sorted(folder.glob("*.tar"))
    for archive in archives:
        tags, config, entries = opened(archive)
        found = list(findings(archive))
        detail = "; ".join(found) or "no shell, nothing its user can write to"
        mark, user = "×" if found else "√", config["config"].get("User")
        print(f"  {mark} {tags[0]}: user {user}: {detail}")
        for member, _ in entries:
            if member.isfile():
                print(f"      {mode(member)} {member.size:>9} {named(place(member))}")
        wrong |= bool(found)
        if other:
            twin = other[0] / archive.name
            lines, others = fingerprint(archive), fingerprint(twin) if twin.exists() else []
            differ = sorted(set(lines) ^ set(others))
            detail = f"{len(differ)} of {len(lines)} lines differ: {differ[:2]}"
            if not differ:
                digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
                detail = f"{len(lines)} entries and settings, sha256 {digest}"
            print(f"  {'×' if differ else '√'} {tags[0]} is the same in {other[0]}: {detail}")
            wrong |= bool(differ)
    return wrong or not archives


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
