# SPDX-License-Identifier: Apache-2.0
"""edgerun: an edge inference runtime for medical imaging devices."""

__version__ = "0.1.0"
