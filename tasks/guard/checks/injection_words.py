"""The words of injections, folded: in English, German, Spanish, French, Italian, Dutch, Portuguese and Polish."""

from __future__ import annotations

from tasks.language.messages import ASSISTANT


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


IGNORE = _words(
    """
    ignore ignores ignoring disregard disregarding forget override overriding bypass bypassing discard neglect
    omit dismiss circumvent violate ignoriere ignorieren vergiss vergesse vergessen missachte umgehe ignora
    ignorar ignorad olvida olvidar olvide omite desobedece ignorez ignorer oublie oubliez oublier contourne
    ignorare dimentica ignori negeer vergeet esqueca esquece desconsidere ignoruj zapomnij
    """
)
EARLIER = _words(
    """
    previous prior above earlier preceding all any every your yours foregoing initial original existing system
    former everything given past vorherigen vorherige bisherigen obigen alle allen deine deiner ihre anteriores
    anterior todas todos tus sus previas previos precedentes precedente toutes tous tes vos anterieures
    precedenti tutte tutti tue vorige eerdere suas seus poprzednie wszystkie
    """
)
ORDERS = _words(
    """
    instruction instructions prompt prompts guideline guidelines directive directives rule rules command
    commands programming policy policies restriction restrictions constraint constraints safeguards training
    orders context anweisung anweisungen regeln befehle vorgaben instruktionen instrucciones ordenes reglas
    indicaciones directrices consignes regles ordres istruzioni regole ordini instructies regels instrucoes
    regras instrukcje polecenia
    """
)
REVEAL = _words(
    """
    reveal show print repeat output display tell give leak expose share dump disclose write list quote recite
    return what translate summarize zeige verrate wiederhole nenne gib muestra revela repite imprime montre
    revele repete affiche mostra rivela ripeti
    """
)
HIDDEN = _words(
    """
    system hidden secret initial original confidential internal systemprompt preprompt
    """
)
BECOME = _words(
    """
    you act pretend roleplay simulate imagine become behave respond answer du sei eres actua agis
    """
)
FREE = _words(
    """
    unrestricted unfiltered uncensored jailbroken jailbreak dan amoral unethical unbound lawless stan aim
    uneingeschrankt unzensiert sin-restricciones
    """
)
WITHOUT = _words(
    """
    no without any free ohne sin sans senza never
    """
)
LIMITS = _words(
    """
    restrictions restriction limitations limits filters filter censorship ethics ethical moral morals guidelines
    rules safeguards boundaries constraints policies einschrankungen beschrankungen restricciones limites regles
    """
)
HIDDEN_ORDERS = ORDERS - _words("context training policy policies command commands") | _words("message messages")
# Marks of prompt formats: nobody writes them to be read.
MARKS = (
    "<|im_start|>",
    "<|im_end|>",
    "<|system|>",
    "<|user|>",
    f"<|{ASSISTANT}|>",
    "<|endoftext|>",
    "[inst]",
    "[/inst]",
    "<<sys>>",
    "<</sys>>",
    "</system>",
    "<system>",
    "### system",
    "### instruction:",
    "<|start_header_id|>",
    "[system]",
    "begin system prompt",
    "end of system prompt",
    "[end of context]",
)
# Phrases that are an attempt wherever they stand.
PHRASES = (
    "a partir de ahora eres",
    "a partir de maintenant",
    "ab jetzt bist du",
    "as an ai you must",
    "attention ai",
    "dear ai",
    "do anything now",
    "from now on you",
    "god mode",
    "if you are a language model",
    "if you are an ai",
    "if you are an llm",
    "instruction to the ai",
    "instructions for the ai",
    "jailbreak mode",
    "new instructions:",
    f"note to the {ASSISTANT}",
)
