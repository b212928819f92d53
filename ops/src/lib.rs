//! What an operator of Slipway touches: configuration, identity, telemetry.
