# SPDX-License-Identifier: Apache-2.0
"""`python -m edgerun`."""

from edgerun.cli import main

main()
