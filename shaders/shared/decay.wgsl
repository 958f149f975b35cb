// e^y for y <= 0. WGSL lets exp be off by 3 ulp near 0, where a bias of half an ulp adds up over thousands
// of chunks; the Taylor series has an error of 4e-10 before rounding there.
fn decay(y: f32) -> f32 {
    var p = 1.0 + y / 7.0;
    p = 1.0 + p * y / 6.0;
    p = 1.0 + p * y / 5.0;
    p = 1.0 + p * y / 4.0;
    p = 1.0 + p * y / 3.0;
    p = 1.0 + p * y / 2.0;
    return select(exp(y), 1.0 + p * y, y > -0.25);
}
