"""ISO 4217: which currencies there are, and how many decimals their smallest unit has."""

from __future__ import annotations

from decimal import Decimal

from airflow_cloudbilling.exact import rounded_to

# List One of 2026, and what left it since 2018: months that are imported again may be old.
_CODES = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    2: """
    AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF CHW
    CNY COP COU CRC CUC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HRK HTG HUF
    IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRO MRU MUR MVR MWK MXN
    MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SLL SOS
    SRD SSP STD STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VEF VES WST XCD XCG YER ZAR ZMW
    ZWG ZWL
    """,
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}
DECIMALS: dict[str, int] = {code: decimals for decimals, codes in _CODES.items() for code in codes.split()}


def subunit(currency: str | None) -> Decimal:
    """Return the smallest amount of a currency, such as 0.01; of one that nobody knows 0.01 too."""
    return Decimal(1).scaleb(-DECIMALS.get(currency or "", 2))


def rounded(amount: Decimal, currency: str | None) -> Decimal:
    """Return an amount with the decimals of its currency, halves away from zero as EN 16931 has it."""
    return rounded_to(subunit(currency), amount)
