#!/usr/bin/env bash
# Check the changelog fragments; antsibull-changelog looks for the collection in the working directory.
set -euo pipefail
cd "$(dirname "$0")/../collections/ansible_collections/ops/maintenance"
exec antsibull-changelog lint
