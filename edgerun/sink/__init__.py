# SPDX-License-Identifier: Apache-2.0
"""Where pictures with their marks go."""
