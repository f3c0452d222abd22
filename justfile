# Recipes for people; CI runs .ci/run itself. `just` lists them.

set positional-arguments

# The recipes, with what they do.
default:
    @just --list

# Build everything.
build:
    cargo build --workspace --all-targets --locked

# Every test that needs no facility.
test *arguments:
    cargo test --workspace --locked "$@"

# Format the tree.
fmt:
    cargo fmt --all

# Formatting, clippy, style, dependencies: quick answers before a commit.
lint: tidy deps drift
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings

# STYLE's numbers and DESIGN's walls as a test.
tidy:
    cargo xtask tidy

# Bans, features, licences and duplicates of deny.toml; directions between our packages.
deps:
    cargo xtask deps

# What Cargo, Bazel, Nix, Kustomize and the READMEs say of the same things.
drift:
    cargo xtask drift

# What the published packages offer: compared with their api.txt; `just api --write` lists it anew.
api *arguments:
    cargo xtask api "$@"

# The documentation of our own packages.
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

# The one-machine lab: `just lab run round-robin`, `just lab list`.
lab *arguments:
    cargo run --release --locked -p lab -- "$@"

# All tiers of CI, or some: `just ci hermetic`.
ci *tiers:
    .ci/run "$@"
