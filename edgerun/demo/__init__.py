# SPDX-License-Identifier: Apache-2.0
"""The demo: a recording through the whole flow, and the report of what it cost."""
