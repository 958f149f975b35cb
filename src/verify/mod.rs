//! Every kernel against golden vectors and the oracle on the chosen device.
