// Prints llama.cpp's logits of a text, as float32 [tokens, vocabulary]: `llama-logits MODEL.gguf ID ID …`.
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "llama.h"

int main(int count, char ** words) {
    llama_log_set([](ggml_log_level, const char *, void *) {}, nullptr);
    llama_backend_init();
    auto model_params = llama_model_default_params();
    model_params.n_gpu_layers = 0;
    llama_model * model = llama_model_load_from_file(words[1], model_params);
    if (model == nullptr) {
        fprintf(stderr, "%s cannot be loaded\n", words[1]);
        return 1;
    }
    std::vector<llama_token> ids;
    for (int i = 2; i < count; i++) {
        ids.push_back(atoi(words[i]));
    }
    const int tokens = (int) ids.size();
    auto params = llama_context_default_params();
    params.n_ctx = params.n_batch = params.n_ubatch = tokens + 64;
    params.n_threads = params.n_threads_batch = 1;
    params.type_k = params.type_v = GGML_TYPE_F32;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    llama_context * context = llama_init_from_model(model, params);
    llama_batch batch = llama_batch_init(tokens, 0, 1);
    batch.n_tokens = tokens;
    for (int i = 0; i < tokens; i++) {
        batch.token[i] = ids[i];
        batch.pos[i] = i;
        batch.n_seq_id[i] = 1;
        batch.seq_id[i][0] = 0;
        batch.logits[i] = 1;
    }
    if (context == nullptr || llama_decode(context, batch) != 0) {
        fprintf(stderr, "%s cannot be decoded\n", words[1]);
        return 1;
    }
    const int vocabulary = llama_vocab_n_tokens(llama_model_get_vocab(model));
    for (int i = 0; i < tokens; i++) {
        fwrite(llama_get_logits_ith(context, i), sizeof(float), vocabulary, stdout);
    }
    return 0;
}
