# What is typed often. `just` is not needed for anything: each recipe is one command.

# Start a federation on this machine and run the examples.
demo *ARGS:
    cargo run --release -- demo {{ARGS}}

# Pass every test.
test *ARGS:
    tests/run {{ARGS}}

# What must pass before a change lands.
ci:
    .ci/run

# Simulate seeds A..B.
sim SEEDS="0..1000" JOBS="2":
    cargo run --release -p tests --bin sim -- --seeds {{SEEDS}} --jobs {{JOBS}}

# Run a benchmark: ingest, durable, failover or footprint.
bench NAME *ARGS:
    cargo run --release -p bench -- {{NAME}} {{ARGS}}
