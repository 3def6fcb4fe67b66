# SPDX-License-Identifier: Apache-2.0
"""What can go wrong, by whose fault. A message says what, which, expected, found and the repair, in one line."""

from __future__ import annotations


class EdgerunError(Exception):
    """Root of every error that edgerun raises on purpose; the command line prints it and exits with 2."""


class SourceError(EdgerunError):
    """The input (a file, a camera, a stream) can't give frames."""


class DecodeError(EdgerunError):
    """A packet that can't become a frame. The stream goes on; the frame is answered `UNDECODABLE`."""


class ModelError(EdgerunError):
    """A model package, or a graph in it, is missing, altered or not what its manifest says."""


class EngineError(EdgerunError):
    """An inference engine can't load, run, or be used here; the message has the reason of each one tried."""


class ConfigError(EdgerunError):
    """A device profile or an option is wrong; all faults of one file come in one message."""


class SinkError(EdgerunError):
    """Results can't be written where they were asked for."""


class StreamError(EdgerunError):
    """The other end of a gRPC stream refused it, broke the protocol or went away."""
