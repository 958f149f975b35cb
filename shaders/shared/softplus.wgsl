// ln(1 + e^x) = max(x, 0) + 2 atanh(w / (2 + w)), w = e^-|x|; atanh(s) = s p(s^2) with a relative error
// of 4.0e-9 before rounding. 1 + w would lose all of a small w.
fn softplus(x: f32) -> f32 {
    let w = exp(-abs(x));
    let s = w / (2.0 + w);
    let t = s * s;
    var p = 0.14089168;
    p = p * t + 0.13980301;
    p = p * t + 0.20012455;
    p = p * t + 0.33333157;
    p = p * t + 1.0;
    return max(x, 0.0) + 2.0 * s * p;
}

// The derivative of softplus.
fn sigmoid(x: f32) -> f32 {
    let w = exp(-abs(x));
    return select(1.0, w, x < 0.0) / (1.0 + w);
}
