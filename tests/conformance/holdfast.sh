#!/usr/bin/env bash
# `run_conformance.py --client --gateway tests/conformance/holdfast.sh`: the gateway, as the driver starts it.
exec "${HOLDFAST:-holdfast}" run "$1" --port "$2"
