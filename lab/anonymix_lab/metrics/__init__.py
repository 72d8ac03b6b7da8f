"""Error rates, curves, intervals and linkability, by ISO/IEC 19795 and 30136."""
