// Prints llama.cpp's ids of texts: `llama-tokens MODEL.gguf`. A text in, as its ids out, is a uint32 count and then
// bytes, or int32 ids. A raw text begins with what the file says; special tokens are found in it.
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "llama.h"

int main(int, char ** words) {
    llama_log_set([](ggml_log_level, const char *, void *) {}, nullptr);
    llama_backend_init();
    auto params = llama_model_default_params();
    params.vocab_only = true;
    llama_model * model = llama_model_load_from_file(words[1], params);
    if (model == nullptr) {
        fprintf(stderr, "%s cannot be loaded\n", words[1]);
        return 1;
    }
    const llama_vocab * vocab = llama_model_get_vocab(model);
    uint32_t length;
    while (fread(&length, sizeof(length), 1, stdin) == 1) {
        std::string text(length, '\0');
        if (fread(text.data(), 1, length, stdin) != length) {
            return 1;
        }
        std::vector<llama_token> ids(length + 16);
        const int32_t count = llama_tokenize(vocab, text.data(), length, ids.data(), ids.size(), true, true);
        if (count < 0) {
            return 1;
        }
        fwrite(&count, sizeof(count), 1, stdout);
        fwrite(ids.data(), sizeof(llama_token), count, stdout);
    }
    return 0;
}
